import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from slimface.deploy.pipeline import Picture
from slimface.deploy.runtimes import open_exported
from slimface.errors import ParityError, UsageError
from slimface.export.formats import format_named
from slimface.export.gate import export
from slimface.export.onnx import Onnx
from slimface.export.step import Export
from slimface.model.detector import Detector
from slimface.step import Context


class Sabotaged:
    """Writes a file whose weights are not those of the detector, as a buggy converter would."""

    suffix: ClassVar[str] = ".onnx"
    precision: ClassVar[str] = "float32"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        other = copy.deepcopy(detector)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.01)
        Onnx(height=64, width=64).write(other, path, provenance=provenance)


def test_a_file_that_agrees_is_kept(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    path = tmp_path / "deep" / "tiny.onnx"
    report = export(detector, path, Onnx(height=64, width=64), pictures=pictures)
    assert report.agrees
    assert report.faces > 10
    assert [file.name for file in path.parent.iterdir()] == ["tiny.onnx"]
    assert open_exported(path).spec == detector.spec


def test_a_file_that_disagrees_does_not_stay(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(b"what was here before")
    with pytest.raises(ParityError, match="Nothing was kept"):
        export(detector, path, Sabotaged(), pictures=pictures)
    assert path.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_without_a_face_prove_nothing(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    with pytest.raises(ParityError, match="finds no face of score"):
        export(
            detector, tmp_path / "x.onnx", Onnx(height=64, width=64), pictures=pictures, score=1.0
        )
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused_before_anything_is_written(
    detector: Detector, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        export(detector, tmp_path / "model.bin", Onnx())
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="cannot be written"):
        export(detector, tmp_path / "file" / "x.onnx", Onnx(height=64, width=64))


def test_a_misspelt_format_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean onnx"):
        format_named("onxx")


def test_the_step_leaves_a_file_and_a_record(detector: Detector, tmp_path: Path) -> None:
    step = Export(format=Onnx(height=64, width=64), pictures=2)
    context = Context(folder=tmp_path)
    assert step(detector, context) is detector
    line = json.loads((tmp_path / "records.jsonl").read_text())
    assert line["kind"] == "export"
    assert line["record"]["bytes"] == (tmp_path / line["record"]["file"]).stat().st_size


@pytest.mark.data
def test_published_weights_find_the_same_faces_on_real_pictures(
    wider_root: Path, weights_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimface.export.pictures import read_pictures
    from slimface.model import zoo

    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    pictures = list(read_pictures(wider_root / "WIDER_val" / "images", limit=6))
    for decode in (False, True):
        report = export(
            zoo.load("eresfd"), tmp_path / "e.onnx", Onnx(decode=decode), pictures=pictures
        )
        assert report.faces > 100
        assert report.matched_share >= 0.995
        assert report.largest_score_drift < 1e-4
