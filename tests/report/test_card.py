import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.errors import DataError, MissingError, UsageError
from slimface.report.card import write_card

SECTIONS = [
    "Before and after",
    "What it finds",
    "Pictures",
    "How long a picture takes",
    "What was removed",
    "How it learnt",
    "Lineage",
    "To repeat it",
]
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Every element, its attributes and the text of the page; fails where tags do not nest."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(folder: Path) -> Page:
    return Page(write_card(folder).read_text(encoding="utf-8"))


def test_a_complete_run_has_every_section(run_folder: Path) -> None:
    page = read(run_folder)
    assert page.headings == SECTIONS
    assert "Not in this run" not in page.text


def test_the_headline_figures_appear_before_and_after(run_folder: Path) -> None:
    text = read(run_folder).text
    for figure in ("92,208", "49,871", "365 M", "201 M", "431 kB", "246 kB", "67.7", "66.1"):
        assert figure in text
    assert "−45.9 %" in text
    assert "−1.6 points" in text
    assert (
        "Removed 30 % of the channels by FPGM, fine-tuned for 8 epochs and exported to ONNX."
        in text
    )


def test_each_precision_has_its_stamp_and_scope(run_folder: Path) -> None:
    text = read(run_folder).text
    assert text.count("wider-val part 120/3226, stamp") == 3 + 1
    assert "NMS 0.3" in text


def test_the_page_needs_no_network_and_no_script(run_folder: Path) -> None:
    markup = write_card(run_folder).read_text(encoding="utf-8")
    page = Page(markup)
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "img", "base", "form"})
    for _, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "action", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not [key for key in attributes if key.startswith("on")]
    assert not re.search(r"url\(|@import|https?://", markup)
    assert len(markup.encode()) < 3_000_000


def test_figures_have_words_for_those_who_do_not_see_them(run_folder: Path) -> None:
    page = read(run_folder)
    figures = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(figures) == 3 + 1 + 1 + 1 + 2
    assert all(attributes.get("aria-label") for attributes in figures)
    cells = [attributes for name, attributes in page.elements if name == "th"]
    assert all(attributes.get("scope") for attributes in cells)


def test_a_line_cut_off_by_a_kill_is_left_out_and_mentioned(run_folder: Path) -> None:
    with (run_folder / "records.jsonl").open("a") as file:
        file.write('{"step": 8, "kind": "evaluation", "record": {"mod')
    text = read(run_folder).text
    assert "was cut off while it was written and is left out" in text
    assert "66.1" in text


def test_a_broken_line_that_ended_is_named(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = lines[3][:40]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"records\.jsonl:4: not a record"):
        write_card(run_folder)
    assert not (run_folder / "card.html").exists()


@pytest.mark.parametrize("line", ["[]", "3", '{"kind": "epoch"}', '{"record": []}', "\x00"])
def test_a_line_of_another_form_is_named(run_folder: Path, line: str) -> None:
    with (run_folder / "records.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="not a record"):
        write_card(run_folder)


def test_a_folder_without_records_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"has no records\.jsonl"):
        write_card(tmp_path)
    with pytest.raises(MissingError, match="is not a folder"):
        write_card(tmp_path / "nowhere")


HOSTILE = "</style></title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;{{ 7 * 7 }}"


def poisoned(value: Any) -> Any:
    """Every text of a record replaced, but for those that decide how it is read."""
    if isinstance(value, dict):
        fixed = ("kind", "date", "path")
        return {key: item if key in fixed else poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_nothing_in_a_record_becomes_markup(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["record"] = poisoned(line["record"])
        line |= dict.fromkeys(("name", "command", "fingerprint", "time"), HOSTILE)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_folder / "recipe.yaml").write_text(f"name: {HOSTILE}\nabout: {HOSTILE}\n")
    page = read(run_folder)
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"script", "img"})
    assert page.headings == SECTIONS
    assert page.text.count(HOSTILE) > 30


@pytest.mark.parametrize(
    ("kind", "section", "missing"),
    [
        ("evaluation", "What it finds", "How well it finds faces"),
        ("benchmark", "How long a picture takes", "How long it takes"),
        ("prune", "What was removed", "Widths"),
        ("epoch", "How it learnt", "Loss curves"),
        ("pictures", "Pictures", "Example pictures"),
    ],
)
def test_what_was_not_recorded_is_said_and_not_drawn(
    make_run: Callable[..., Path], kind: str, section: str, missing: str
) -> None:
    page = read(make_run(lambda line: line["kind"] != kind))
    assert section not in page.headings
    assert missing in page.text.partition("Not in this run")[2]


def test_a_run_that_has_only_begun_has_a_card(make_run: Callable[..., Path]) -> None:
    page = read(make_run(lambda line: line["step"] == 0, recipe=""))
    assert page.headings == ["Lineage", "To repeat it", "Not in this run"]
    assert "The folder has no recipe.yaml" in page.text


def test_an_evaluation_before_only_claims_nothing(make_run: Callable[..., Path]) -> None:
    text = read(make_run(lambda line: line["step"] < 5)).text
    assert "How well it finds faces now" in text
    assert "points" not in text


def test_different_protocols_get_no_difference(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    last["record"]["protocol"]["nms_overlap"] = 0.5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = read(run_folder)
    assert "follow different protocols (nms_overlap: 0.3 and 0.5)" in page.text
    assert page.text.count("not comparable") == 1 + 3
    assert "points" not in page.text
    assert not [
        a for name, a in page.elements if name == "path" and a.get("class") == "line before"
    ]


def test_a_record_that_breaks_its_rules_is_left_out_and_named(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    last["record"]["subsets"][0]["average_precision"] = 1.7
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = read(run_folder).text
    assert "One evaluation is left out" in text
    assert "less than or equal to 1" in text


def test_the_lineage_goes_from_parent_to_child(run_folder: Path) -> None:
    page = read(run_folder)
    codes = [text for text in page.words if re.fullmatch(r"[0-9a-f]{12}", text)]
    assert len(dict.fromkeys(codes)) >= 8
    assert " from " not in page.text.partition("Lineage")[2].partition("To repeat it")[0]


def test_an_export_says_how_well_it_agrees(run_folder: Path) -> None:
    agreement = "finds 412 of the model's 412 faces and 0 others, scores at most 1e-06 apart"
    assert agreement in read(run_folder).text


def test_the_machine_is_described_once_and_without_gaps(run_folder: Path) -> None:
    text = read(run_folder).text.partition("Versions and machine")[2]
    assert text.count("Example CPU") == 1
    assert "memory 8 GB" in text
    assert "None" not in text


def test_an_exported_file_needs_no_benchmark_to_have_a_size(make_run: Callable[..., Path]) -> None:
    text = read(make_run(lambda line: line["kind"] != "benchmark")).text
    assert "246 kB" in text
    assert "431 kB" not in text


def test_training_alone_is_not_compared_in_size(make_run: Callable[..., Path]) -> None:
    kept = ("start", "epoch")
    folder = make_run(lambda line: line["kind"] in kept)
    for place in (folder, folder / "steps" / "00-start-abc"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.safetensors").write_bytes(bytes(2000))
    text = read(folder).text
    assert "2 kB" in text
    assert "was 2 kB" not in text


def test_a_role_outranks_the_order_of_the_steps(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first, last = (line for line in lines if line["kind"] == "evaluation")
    first["role"], last["role"] = "after", "before"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "+1.6 points" in read(run_folder).text


def test_a_parent_that_is_not_in_the_run_is_named(make_run: Callable[..., Path]) -> None:
    page = read(make_run(lambda line: line["step"] not in (0, 1, 2)))
    lineage = page.text.partition("Lineage")[2]
    assert " from " in lineage.partition("Fine-tuned")[0]


def test_the_licence_of_the_weights_is_shown_or_its_lack_is_said(
    make_run: Callable[..., Path],
) -> None:
    assert "Apache-2.0" in read(make_run()).text
    text = read(make_run(lambda line: line["step"] != 0)).text
    assert "nothing can be said about their licence" in text


def test_the_licence_is_read_from_the_model_where_the_run_is_silent(
    make_run: Callable[..., Path],
) -> None:
    folder = make_run(lambda line: line["step"] != 0)
    provenance = json.dumps({"origin": "clovaai/EResFD", "licence": "Apache-2.0"})
    header = json.dumps({"__metadata__": {"provenance": provenance}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "clovaai/EResFD" in read(folder).text


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02" + bytes(7) + b"[]"])
def test_a_damaged_model_does_not_keep_the_card_from_being_written(
    make_run: Callable[..., Path], content: bytes
) -> None:
    folder = make_run(lambda line: line["step"] != 0)
    (folder / "model.safetensors").write_bytes(content)
    assert "nothing can be said about their licence" in read(folder).text


def test_a_long_sentence_about_a_run_is_shown_to_its_end(make_run: Callable[..., Path]) -> None:
    folder = make_run(recipe="name: demo\nabout: A sentence that YAML has folded\n  to its end.\n")
    assert "A sentence that YAML has folded to its end." in read(folder).text


@pytest.mark.parametrize("recipe", ["name: [", "- a\n- b\n", "\t", "name: {a: 1}\n"])
def test_a_recipe_that_cannot_be_read_leaves_the_folder_s_name(
    make_run: Callable[..., Path], recipe: str
) -> None:
    markup = write_card(make_run(recipe=recipe)).read_text(encoding="utf-8")
    assert "<h1>run</h1>" in markup


def test_random_weights_have_no_foreign_licence(make_run: Callable[..., Path]) -> None:
    recipe = "name: demo\npretrained: false\n"
    text = read(make_run(lambda line: line["step"] != 0, recipe=recipe)).text
    assert "random weights; nothing published is in them" in text


def test_a_busy_machine_is_admitted(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    text = path.read_text().replace('"load_average": 0.4', '"load_average": 6.5')
    path.write_text(text)
    assert "busy with other work during 6 of 6 benchmarks" in read(run_folder).text


def test_a_command_is_shown_once_whatever_folder_it_was_called_from(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    first, *rest = path.read_text().split('"slimface run')
    path.write_text(first + '"/opt/bin/slimface run' + '"slimface run'.join(rest))
    page = read(run_folder)
    assert page.text.count("slimface run recipes/eresfd-fpgm-30.yaml") == 1
    assert "/opt" not in page.text


def test_the_card_can_be_written_elsewhere(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert write_card(run_folder, out) == out
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_a_card_that_cannot_be_written_leaves_nothing(run_folder: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    (taken / "inside").mkdir(parents=True)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"taken cannot be written: .*\n.*--out"):
        write_card(run_folder, taken)
    with pytest.raises(UsageError, match="cannot be written"):
        write_card(run_folder, run_folder / "recipe.yaml" / "card.html")
    assert sorted(tmp_path.iterdir()) == before


def test_without_jinja2_it_says_what_to_install(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingError, match=r"pip install 'slimface\[report\]'"):
        write_card(run_folder)


def test_the_command_prints_where_the_card_is(run_folder: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run_folder)])
    assert done.exit_code == 0
    assert done.stdout == f"{run_folder / 'card.html'}\n"


def test_the_command_explains_a_folder_that_is_no_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(done.exception, MissingError)
    assert not (tmp_path / "card.html").exists()
