"""cascade.js, the cascade of pages, in Node with real networks: what the pipeline finds."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from slimface.deploy.pipeline import Settings
from slimface.loading import load
from tests.export.cascades import RULES
from tests.export.conftest import APPS

HARNESS = """
import { readFileSync } from "node:fs";
const [runtime, place, ...folders] = process.argv.slice(1);
const ort = await import(`${runtime}/ort.wasm.min.mjs`);
ort.env.wasm.numThreads = 1;
const { Cascade, open } = await import(`${place}/cascade.js`);
const json = (path) => JSON.parse(readFileSync(path));
for (const folder of folders) {
  const { settings, limits, picture, description } = json(`${folder}/case.json`);
  const read = async (path) => new Uint8Array(readFileSync(path));
  try {
    const cascade = await open(ort, read, description);
    if (!(cascade instanceof Cascade)) throw new Error("no cascade was opened");
    Object.assign(cascade, limits);
    const data = new Uint8ClampedArray(readFileSync(`${folder}/rgba.bin`));
    const { faces, ms } = await cascade.detect({ data, ...picture }, settings);
    console.log(JSON.stringify({ faces, ms }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message, kind: error.constructor.name }));
  }
}
"""

CASES = {
    **{name: (name, {}, {}) for name in RULES},
    "in bands and batches": ("facenet", {}, {"bandPixels": 900, "batch": 7}),
    "smaller": ("facenet", {"longest": 97}, {}),
    "smaller, linear": ("floor", {"longest": 97}, {}),
    "settings": ("facenet", {"score": 0.55, "overlap": 0.2, "cap": 3}, {}),
}
"""Name -> nets, settings of JavaScript, limits of memory."""


def described(folder: Path, **changes) -> dict:
    spec = json.loads((folder / "spec.json").read_text())
    return {"spec": spec | changes, "path": str(folder), "outputs": "raw", "canvas": None}


def write_case(folder: Path, picture, description, settings=None, limits=None) -> None:
    height, width = picture.shape[:2]
    rgba = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    (folder / "rgba.bin").write_bytes(rgba.tobytes())
    told = {
        "picture": {"height": height, "width": width},
        "settings": settings or {},
        "limits": limits or {},
        "description": description,
    }
    (folder / "case.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def run(node, ort_web):
    """Detect on all cases in one process: the runtime takes longer to start than they to run."""

    def run_(cases: list[Path]) -> list[dict]:
        command = [node, "--input-type=module", "-e", HARNESS, ort_web, APPS / "js", *cases]
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run_


@pytest.fixture(scope="module")
def found(run, cascades, scene, tmp_path_factory) -> dict[str, dict]:
    cases = []
    for name, (nets, settings, limits) in CASES.items():
        cases.append(tmp_path_factory.mktemp(f"case {name}"))
        write_case(cases[-1], scene, described(cascades[nets]), settings, limits)
    return dict(zip(CASES, run(cases), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_it_finds_what_the_pipeline_finds(found, cascades, scene, name):
    nets, asked, _ = CASES[name]
    settings = Settings(
        longest_px=asked.get("longest"),
        score_floor=asked.get("score"),
        nms_overlap=asked.get("overlap"),
        cap=asked.get("cap"),
    )
    wanted = load(cascades[nets]).detect(scene, settings)
    given = found[name].get("faces")
    assert given is not None, found[name]
    assert len(given) == len(wanted) >= 3
    for i, face in enumerate(given):
        np.testing.assert_allclose(face["box"], wanted.boxes[i], atol=1e-3)
        assert face["score"] == pytest.approx(wanted.scores[i], abs=1e-5)
        np.testing.assert_allclose(face["landmarks"], wanted.landmarks[i], atol=1e-3)


def test_it_says_where_the_milliseconds_went(found):
    ms = found["facenet"]["ms"]
    assert set(ms) == {"prepare", "network", "decode"}
    assert min(ms.values()) > 0


def test_nets_that_do_not_fit_are_refused(run, cascades, scene, tmp_path):
    faults = {}
    for name, change in {
        "version 99": {"version": 99},
        "classification": {"task": "classification"},
        "sides of landmarks": {"landmarks": 4},
    }.items():
        faults[name] = tmp_path / name
        faults[name].mkdir()
        write_case(faults[name], scene, described(cascades["facenet"], **change))
    cut = tmp_path / "cut"
    cut.mkdir()
    for net in ("pnet", "rnet", "onet"):
        content = (cascades["facenet"] / f"{net}.onnx").read_bytes()
        (cut / f"{net}.onnx").write_bytes(content[:99] if net == "rnet" else content)
    faults["cannot be opened"] = cut
    write_case(cut, scene, described(cascades["facenet"]) | {"path": str(cut)})
    for word, answer in zip(faults, run(list(faults.values())), strict=True):
        assert answer["kind"] == "SlimfaceError", answer
        assert word in answer["error"]
