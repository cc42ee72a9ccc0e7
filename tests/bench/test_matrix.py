import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from slimface.bench.advice import advise
from slimface.bench.contenders import ALL, contenders, runtimes_named
from slimface.bench.matrix import Grid, Scored, joined, matrix
from slimface.cli.app import app
from slimface.core.benchmark import Benchmark, Machine, Spread
from slimface.core.matrix import Cell, Matrix, Quality
from slimface.core.record import Original, Protocol
from slimface.data.source import DrawnScenes
from slimface.errors import UsageError
from slimface.evaluate.truth import Truth
from slimface.model.build import build
from slimface.model.checkpoint import save
from slimface.model.eresfd import naver
from slimface.report.matrix import as_csv, notes, page, terse

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
QUICK = {"sizes": ((48, 64),), "rounds": 1, "runs": 2}


@pytest.fixture(scope="module")
def cells(
    tiny_onnx: Path, tiny_decoded_onnx: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Cell]:
    """Two files that run and one that is cut off, scored on drawn scenes."""
    folder = tmp_path_factory.mktemp("matrix")
    broken = folder / "broken.onnx"
    broken.write_bytes(tiny_onnx.read_bytes()[:200])
    source = DrawnScenes()
    pictures = source.pictures("val").subset([0, 1])
    scored = Scored(pictures, Truth.of(pictures), folder / "detections")
    models = [str(tiny_onnx), str(broken), str(tiny_decoded_onnx)]
    return list(matrix(models, Grid(**QUICK), picture=PICTURE, scored=scored))


def test_what_cannot_run_says_why_and_stops_nothing_else(cells: list[Cell]) -> None:
    first, broken, last = cells
    assert (broken.benchmark, broken.quality) == (None, None)
    assert "damaged" in broken.refused or "no rival" in broken.refused
    for cell in (first, last):
        assert cell.refused == ""
        assert cell.runtime == "onnxruntime"
        assert cell.benchmark and cell.benchmark.runs == 2
        assert cell.quality and cell.quality.average_precision.keys() == {"all"}


def test_the_figures_are_stamped_with_the_size_that_was_timed(cells: list[Cell]) -> None:
    quality = cells[0].quality
    assert quality
    assert str(quality.protocol.input) == "fit:64x48"
    assert quality.stamp == quality.protocol.stamp
    assert any(f"Protocol {quality.stamp}" in note for note in notes(joined(cells)))


def test_a_matrix_survives_json(cells: list[Cell]) -> None:
    whole = joined(cells)
    assert Matrix.model_validate_json(whole.model_dump_json()) == whole


def test_the_csv_has_a_row_for_each_cell(cells: list[Cell]) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(joined(cells)))))
    assert [bool(row["median_ms"]) for row in rows] == [True, False, True]
    assert float(rows[0]["median_ms"]) == cells[0].benchmark.total.median_ms  # type: ignore[union-attr]
    assert rows[0]["ap_all"] and rows[1]["refused"]


def test_the_page_shows_every_cell_and_escapes_names(cells: list[Cell]) -> None:
    wicked = cells[0].model_copy(update={"model": "<script>alert(1)</script>,x=1"})
    shown = page(joined([wicked, *cells]))
    assert "<script" not in shown
    assert shown.count("<tr>") == 1 + 4
    assert "http" not in shown.partition("<style>")[2]


def test_the_page_without_ap_draws_files_over_time(cells: list[Cell]) -> None:
    bare = [cell.model_copy(update={"quality": None}) for cell in cells]
    assert "file, kB over milliseconds" in page(joined(bare))


def test_nothing_but_refusals_is_still_a_page(cells: list[Cell]) -> None:
    whole = joined([cells[1]])
    assert "refused" in page(whole)
    assert terse(whole) == ([], [])
    assert whole.advice.ship == ()


def test_a_format_that_refuses_is_a_cell_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save(build(naver("tiny", width=4), seed=0).eval(), path)
    [one] = contenders(str(path), ["onnxruntime"], ["int4"], [(48, 64)], cache=tmp_path)
    assert one.refused.startswith("onnxruntime has files of precision float32 or float16 here")
    [one] = contenders(str(path), ["ncnn"], ["int8"], [(48, 64)], cache=tmp_path)
    assert one.refused.endswith("Files of int8 are for onnxruntime and openvino.")


def test_exported_files_run_as_they_are(tiny_onnx: Path) -> None:
    [one] = contenders(str(tiny_onnx), ["ncnn", "openvino"], ["float16"], [(48, 64)])
    assert (one.source, one.runtime, one.refused) == (str(tiny_onnx), "", "")


def test_runtimes_are_named_or_all() -> None:
    assert runtimes_named("all") == ALL
    assert runtimes_named("ncnn, onnxruntime,ncnn") == ("ncnn", "onnxruntime")
    with pytest.raises(UsageError, match="no runtime 'tensorrt'"):
        runtimes_named("tensorrt")


def test_the_command_writes_all_three_files(tiny_onnx: Path, tmp_path: Path) -> None:
    places = [tmp_path / f"m.{suffix}" for suffix in ("json", "csv", "html")]
    words = [word for place in places for word in ("--out", str(place))]
    options = ["--size", "64x48", "--rounds", "1", "--runs", "1", "--threads", "1,2", "--json"]
    ran = CliRunner().invoke(app, ["-q", "benchmark", str(tiny_onnx), *options, *words])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout[ran.stdout.index("{") : ran.stdout.rindex("}") + 1])
    assert [cell["threads"] for cell in printed["cells"]] == [1, 2]
    assert json.loads(places[0].read_text()) == printed
    assert all(place.stat().st_size > 100 for place in places)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "two"], "'two'"),
        (["--out", "x.txt", "--runtimes", "all"], "x.txt"),
        (["--runtimes", "tensorrt"], "tensorrt"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tiny_onnx: Path, words: list[str], said: str
) -> None:
    ran = CliRunner().invoke(app, ["benchmark", str(tiny_onnx), *words])
    assert isinstance(ran.exception, UsageError)
    assert said in str(ran.exception)


# Advice, on figures made up for it.

_MACHINE = Machine(
    processor="p", cores=2, memory_bytes=None, system="s", governor=None, versions={}
)


def _cell(
    model: str,
    ms: float,
    *,
    ap: float | None = None,
    size: int = 1000,
    macs: int = 100,
    **where: object,
) -> Cell:
    def spread(value: float) -> Spread:
        return Spread(
            median_ms=value, p10_ms=value, p90_ms=value, least_ms=value, best_round_ms=value
        )

    place = {"runtime": "ncnn", "precision": "float32", "threads": 1} | where
    protocol = Protocol(
        evaluator="e", truth="t", truth_sha256="0", pictures=1, pictures_in_truth=1,
        input=Original(), score_floor=0.05, nms_overlap=0.3, pre_nms=5000, cap=750,
    )  # fmt: skip
    return Cell(
        **{"model": model, "height": 48, "width": 64, "file": f"{model}-{ms}.x"} | place,
        benchmark=Benchmark(
            model=model, model_fingerprint="0", runtime="ncnn", height=48, width=64, threads=1,
            total=spread(ms), preprocess=spread(0), network=spread(ms), postprocess=spread(0),
            rounds=1, runs=1, faces=0, open_ms=1, first_ms=1, memory_bytes=1, file_bytes=size,
            macs=macs, load_average=0, machine=_MACHINE, date="2026-01-01T00:00:00Z", version="0",
        ),
        quality=None if ap is None else Quality(
            protocol=protocol, stamp=protocol.stamp, average_precision={"easy": 0.9, "all": ap}
        ),
    )  # fmt: skip


def test_the_fastest_file_that_finds_as_much_is_shipped() -> None:
    found = advise([_cell("a", 10, ap=0.80), _cell("a", 5, ap=0.70), _cell("a", 7, ap=0.797)])
    assert [one.file for one in found.ship] == ["a-7.x"]


def test_of_equally_fast_files_the_smaller_one_is_shipped() -> None:
    found = advise([_cell("a", 10.0, size=400), _cell("a", 10.2, size=200)])
    assert [one.file for one in found.ship] == ["a-10.2.x"]


def test_what_torch_runs_is_not_shipped() -> None:
    assert advise([_cell("a", 1, file=None)]).ship == ()


def test_fewer_bits_that_save_no_time_or_cost_accuracy_are_told() -> None:
    slow = advise([_cell("a", 10), _cell("a", 9.9, precision="int8", size=300)])
    assert "int8 in ncnn, 64x48, 1 thread: does not pay in time" in slow.remarks[0]
    assert "700 bytes smaller" in slow.remarks[0]
    dear = advise([_cell("a", 10, ap=0.8), _cell("a", 5, ap=0.7, precision="int8")])
    assert "costs 10.0 points of AP" in dear.remarks[0]
    assert not advise([_cell("a", 10), _cell("a", 5, precision="int8")]).remarks


def test_pruning_that_saves_no_time_is_told() -> None:
    found = advise([_cell("a", 10, macs=100), _cell("b", 10, macs=60)])
    assert "40% fewer MACs than a do not pay" in found.remarks[0]
    assert not advise([_cell("a", 10, macs=100), _cell("b", 6, macs=60)]).remarks


def test_a_second_thread_that_saves_no_time_is_told() -> None:
    found = advise([_cell("a", 10, file="f"), _cell("a", 11, file="f", threads=2)])
    assert "2 threads are not faster than 1" in found.remarks[0]
