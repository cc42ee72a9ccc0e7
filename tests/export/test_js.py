"""slimface.js, the detector of pages, compared with the pipeline in Node."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import slimface.export
from slimface.core.spec import Preprocess
from slimface.deploy.pipeline import Settings
from slimface.export.golden import Golden, golden
from tests.export.noisy import CASES, PICTURE, noisy, proof_of

RUNNER = Path(slimface.export.__file__).parent / "apps" / "js" / "slimface.js"
HARNESS = """
import { readFileSync } from "node:fs";
const js = await import(process.argv[1]);
const folder = process.argv[2];
const told = JSON.parse(readFileSync(`${folder}/case.json`));
const { spec, picture, settings, canvas, outputs } = told;
const floats = (name) => {
  try { return new Float32Array(new Uint8Array(readFileSync(`${folder}/${name}.f32`)).buffer); }
  catch { return undefined; }
};
const rgba = new Uint8ClampedArray(readFileSync(`${folder}/rgba.bin`));
class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
let seen;
const names = ["logits", "offsets", "scores", "boxes", "landmarks"];
const session = {
  inputNames: ["images"],
  run: async ({ images }) => {
    seen = images;
    return Object.fromEntries(names.map((n) => [n, { data: floats(n) }]).filter(([, t]) => t.data));
  },
};
const detector = new js.Detector({ Tensor }, session, { spec, canvas, outputs });
try {
  const { faces } = await detector.detect({ data: rgba, ...picture }, settings);
  const wanted = floats("images");
  let far = seen.data.length === wanted.length ? 0 : Infinity;
  for (let i = 0; i < wanted.length; i++) far = Math.max(far, Math.abs(wanted[i] - seen.data[i]));
  console.log(JSON.stringify({ faces, far, dims: seen.dims }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, kind: error.constructor.name }));
}
"""


def run(node, tmp_path, pipeline, proof: Golden, *, settings=None, outputs="raw") -> dict:
    """Detect with slimface.js, the network played by the tensors of a golden picture."""
    proof.write(tmp_path)
    height, width = proof.picture.shape[:2]
    rgba = np.dstack([proof.picture, np.full((height, width), 255, np.uint8)])
    (tmp_path / "rgba.bin").write_bytes(rgba.tobytes())
    case = {
        "spec": pipeline.spec.model_dump(mode="json"),
        "picture": {"height": height, "width": width},
        "settings": settings or {},
        "canvas": pipeline.canvas,
        "outputs": outputs,
    }
    (tmp_path / "case.json").write_text(json.dumps(case))
    command = [node, "--input-type=module", "-e", HARNESS, str(RUNNER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def agree(given: dict, faces) -> None:
    assert len(given["faces"]) == len(faces) > 3
    for face, box, score in zip(given["faces"], faces.boxes, faces.scores, strict=True):
        np.testing.assert_allclose(face["box"], box, atol=1e-3)
        assert face["score"] == pytest.approx(score, abs=1e-5)
    if faces.landmarks is not None:
        points = [face["landmarks"] for face in given["faces"]]
        np.testing.assert_allclose(points, faces.landmarks, atol=1e-3)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_it_finds_what_the_pipeline_finds(node, tmp_path, changes):
    pipeline = noisy(**changes)
    proof = proof_of(pipeline)
    faces, images = proof.faces, proof.tensors["images"]
    outputs = "decoded" if changes.get("decoded") else "raw"
    given = run(node, tmp_path, pipeline, proof, outputs=outputs)
    assert given["dims"] == list(images.shape)
    assert given["far"] < 1e-5
    agree(given, faces)


def test_settings_count(node, tmp_path):
    pipeline = noisy()
    settings = Settings(longest_px=77, score_floor=0.5, nms_overlap=0.2, cap=7)
    images = np.array(pipeline.prepare([PICTURE], settings))
    answer = pipeline.network(images)
    tensors = {
        "images": images,
        "logits": answer.logits,
        "offsets": answer.offsets,
        "landmarks": answer.landmarks,
    }
    faces = pipeline.detect(PICTURE, settings)
    asked = {"longest": 77, "score": 0.5, "overlap": 0.2, "cap": 7}
    given = run(node, tmp_path, pipeline, Golden(PICTURE, tensors, faces), settings=asked)
    assert len(faces) == 7
    agree(given, faces)


def test_pictures_are_resized_to_the_bits_of_opencv(node, tmp_path):
    even = PICTURE[:, :140]
    for longest in (50, 70, 300):
        pipeline = noisy(preprocess=Preprocess())
        images = np.array(pipeline.prepare([even], Settings(longest_px=longest)))
        answer = pipeline.network(images)
        tensors = {"images": images, "logits": answer.logits, "offsets": answer.offsets}
        proof = Golden(even, tensors, pipeline.detect(even, Settings(longest_px=longest)))
        given = run(node, tmp_path, pipeline, proof, settings={"longest": longest})
        assert given["far"] == 0


def test_a_real_network_gives_the_golden_faces(node, tmp_path, tiny_onnx):
    from slimface.deploy.runtimes import open_exported

    pipeline = open_exported(tiny_onnx)
    proof = golden(pipeline)
    given = run(node, tmp_path, pipeline, proof)
    for face, box in zip(given["faces"], proof.faces.boxes, strict=True):
        np.testing.assert_allclose(face["box"], box, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors: tensors | {"logits": tensors["logits"][:, 1:]}, "anchors"),
        (lambda tensors: tensors | {"logits": tensors["logits"] * np.nan}, "no numbers"),
    ],
)
def test_answers_that_do_not_fit_are_refused(node, tmp_path, change, word):
    pipeline = noisy(landmarks=0)
    images = np.array(pipeline.prepare([PICTURE]))
    answer = pipeline.network(images)
    tensors = {"images": images, "logits": answer.logits, "offsets": answer.offsets}
    given = run(
        node, tmp_path, pipeline, Golden(PICTURE, change(tensors), pipeline.detect(PICTURE))
    )
    assert given["kind"] == "SlimfaceError"
    assert word in given["error"]
