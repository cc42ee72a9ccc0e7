"""What the documents say is true: Python runs, commands exist, links lead somewhere."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from slimface.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name != "CHANGELOG.md"
]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every fenced block of a language, without the indentation of a list around it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        for i, (indent, block) in enumerate(found):
            code = "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True))
            yield f"{page.relative_to(ROOT)}-{i}", code


def commands() -> Iterator[tuple[str, str]]:
    """Every command line of slimface in a shell block."""
    for where, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if "slimface " in line and not line.lstrip().startswith(("#", "pip", "git", "cd")):
                yield where, line[line.index("slimface ") :]


PYTHON = list(blocks("python"))
COMMANDS = list(commands())


@pytest.mark.parametrize("code", [code for _, code in PYTHON], ids=[where for where, _ in PYTHON])
def test_python_in_the_documents_runs(code: str, tmp_path: Path, tiny_onnx: Path) -> None:
    """In a folder that has what the documents speak of: a photo, and the file the demo makes."""
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    shutil.copy(tiny_onnx, tmp_path / "runs" / "demo" / "slim.onnx")
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((64, 64, 3), 90, np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for _, line in COMMANDS], ids=[line for _, line in COMMANDS])
def test_commands_in_the_documents_exist(line: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while words and (inner := getattr(command, "commands", {}).get(words[0])):
        command, words = inner, words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    if hasattr(command, "commands") and words:
        assert words[0].startswith("-"), f"there is no verb {words[0]}"
    unknown = [word for word in words if word.startswith("--") and word not in known]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_contributing_page_fits_a_screen() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 40


def test_every_error_is_documented_with_its_exit_code() -> None:
    from slimface import errors

    text = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    leaves = errors.SlimfaceError.__subclasses__()
    rows = [
        (leaf, row) for leaf in leaves for row in text.splitlines() if f"`{leaf.__name__}`" in row
    ]
    assert len(rows) == len(leaves)
    assert all(row.endswith(f"| {leaf.exit_code} |") for leaf, row in rows)


def test_every_decision_and_verb_is_listed() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = (decisions / "index.md").read_text(encoding="utf-8")
    assert [p.name for p in decisions.glob("0*.md") if f"({p.name})" not in listed] == []
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs if f"`{verb}`" not in index] == []
