import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from slimface.compress.repair.reconstruct import reconstruct, remaining_outputs
from slimface.compress.search.bounds import measure
from slimface.compress.search.finalists import Finals
from slimface.compress.search.fit import fitted
from slimface.compress.search.proxy import Proxy, ShortTraining
from slimface.compress.search.result import Finding, confirm
from slimface.compress.search.step import Search
from slimface.compress.search.study import JOURNAL, open_study
from slimface.core.budget import parse_budget
from slimface.data.source import DrawnScenes
from slimface.errors import CheckpointError, DataError, ProtocolError, RecipeError, UsageError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.checkpoint import save
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.report.search import render
from slimface.step import Context
from slimface.train.schedule import Schedule

SCENES = DrawnScenes(train=30, val=4, size_px=96)
PROXY = Proxy(calibration=4, held_out=4, size_px=96, batch_size=4, share=0.2)
TRAINING = ShortTraining(pictures=8, size_px=96, schedule=Schedule(epochs=1, batch_size=4))
FINALS = Finals(trained=2, verified=1, training=TRAINING)
SEARCH = Search(budgets=("-40% macs@128x96",), trials=6, warmup=3, proxy=PROXY, finals=FINALS)


@pytest.fixture(scope="module", autouse=True)
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFACE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(eresfd.naver(width=8), seed=0).eval()


def context(folder: Path) -> Context:
    return Context(folder=folder, source=SCENES)


def seen(finding: Finding) -> list[tuple[float, ...]]:
    return [finding.losses, finding.points, finding.best.widths]


@pytest.fixture(scope="module")
def found(
    detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Finding, Detector, Path]:
    folder = tmp_path_factory.mktemp("search")
    finding, best = SEARCH.find(detector, context(folder))
    return finding, best, folder


def test_no_draw_is_wasted_and_the_best_meets_the_budget(
    found: tuple[Finding, Detector, Path], detector: Detector
) -> None:
    finding, best, _ = found
    assert len(finding.losses) == 6
    assert all(cost <= finding.limits[0] for cost in finding.points)
    assert profile(best, 96, 128).macs == finding.best.costs[0]
    assert finding.before == (profile(detector, 96, 128).macs,)
    assert finding.decided_by == "average precision"
    assert finding.best.score is not None
    assert len([one for one in finding.finalists if one.trained_loss is not None]) == 2


def test_the_first_candidates_are_what_plain_allocators_come_to(
    found: tuple[Finding, Detector, Path],
) -> None:
    finding, _, folder = found
    study = optuna.load_study(study_name="slimface", storage=_storage(folder))
    first = study.trials[0]
    removed = 1 - np.array(first.user_attrs["widths"]) / np.array(finding.sizes)
    # Uniform: groups of 8 and 4 channels cannot be closer to one rate than this.
    assert removed[np.array(finding.sizes) == 8].std() < 0.13


def test_the_detector_given_stays_as_it_was(
    found: tuple[Finding, Detector, Path], detector: Detector
) -> None:
    again = build(eresfd.naver(width=8), seed=0)
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_search_that_goes_on_ends_like_one_that_was_never_stopped(
    found: tuple[Finding, Detector, Path], detector: Detector, tmp_path: Path
) -> None:
    finding, _, _ = found
    for trials in (3, 6):
        part = SEARCH.model_copy(update={"trials": trials})
        last, _ = part.find(detector, context(tmp_path))
    assert seen(last) == seen(finding)


def test_a_finished_search_repeats_nothing(
    found: tuple[Finding, Detector, Path], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding, _, folder = found
    monkeypatch.setattr("slimface.compress.search.proxy.Bench.judge", _refuse)
    monkeypatch.setattr("slimface.compress.search.proxy.ShortTraining.__call__", _refuse)
    again, _ = SEARCH.find(detector, context(folder))
    assert again == finding


def _refuse(*_: object) -> float:
    raise AssertionError("this was done before")


def _storage(folder: Path) -> optuna.storages.JournalStorage:
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.compress.test_search_step import SEARCH, context
from slimface.model import eresfd
from slimface.model.build import build
step = SEARCH.model_copy(update={{"trials": int(sys.argv[2])}})
step.find(build(eresfd.naver(width=8), seed=0).eval(), context(Path(sys.argv[1])))
"""


def _process(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(root=root), str(folder), str(trials)]
    )


@pytest.mark.slow
def test_killed_and_shared_by_two_processes_a_study_loses_nothing(
    detector: Detector, tmp_path: Path
) -> None:
    worker = _process(tmp_path, 10_000)
    journal = tmp_path / JOURNAL
    while not journal.exists() or len(_complete(tmp_path)) < 3:
        assert worker.poll() is None
        time.sleep(0.2)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    before = {trial.number: trial.values for trial in _complete(tmp_path)}
    wanted = len(before) + 8
    workers = [_process(tmp_path, wanted) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    after = _complete(tmp_path)
    assert before.items() <= {trial.number: trial.values for trial in after}.items()
    widths = {tuple(trial.user_attrs["widths"]) for trial in after}
    # Two may finish one more each than was asked, at the same moment.
    assert wanted <= len(widths) <= wanted + 1
    assert len({trial.user_attrs["worker"] for trial in after}) == 3


def _complete(folder: Path) -> list[optuna.trial.FrozenTrial]:
    try:
        study = optuna.load_study(study_name="slimface", storage=_storage(folder))
    except KeyError:
        return []
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def test_a_half_written_line_of_a_killed_process_is_dropped(
    found: tuple[Finding, Detector, Path], detector: Detector, tmp_path: Path
) -> None:
    finding, _, folder = found
    whole = (folder / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"op_code":4,"worker_id":"a')
    again, _ = SEARCH.find(detector, context(tmp_path))
    assert seen(again) == seen(finding)


@pytest.mark.parametrize("content", [b"not a study\n", b"\x00\x01\n{}\n", b'{"op_code": 99}\n{}\n'])
def test_a_file_that_is_no_study_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(DataError, match="damaged or holds no study"):
        open_study(tmp_path / JOURNAL, "slimface", {})


def test_a_study_of_another_model_is_refused(
    found: tuple[Finding, Detector, Path],
) -> None:
    _, _, folder = found
    other = build(eresfd.naver(width=8), seed=1).eval()
    with pytest.raises(ProtocolError, match="another model"):
        SEARCH.find(other, context(folder))


def test_a_study_of_other_settings_is_refused(
    found: tuple[Finding, Detector, Path], detector: Detector
) -> None:
    _, _, folder = found
    other = SEARCH.model_copy(update={"max_rate": 0.5})
    with pytest.raises(ProtocolError, match="other settings"):
        other.find(detector, context(folder))


def test_damaged_weights_are_refused_before_anything_is_searched(tmp_path: Path) -> None:
    broken = build(eresfd.naver(width=8), seed=0).eval()
    with torch.no_grad():
        broken.base.conv1[0].weight[0] = math.nan
    with pytest.raises(CheckpointError, match="damaged"):
        SEARCH.find(broken, context(tmp_path))
    assert not (tmp_path / JOURNAL).exists()


def test_a_candidate_without_a_loss_is_left_out_and_another_drawn(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([2.0, 3.0, 4.0, math.nan, 1.0, 5.0])
    monkeypatch.setattr("slimface.compress.search.proxy.Bench.judge", lambda *_: next(losses))
    search = SEARCH.model_copy(update={"trials": 5, "finals": Finals(trained=0, verified=0)})
    finding, _ = search.find(detector, context(tmp_path))
    assert finding.losses == (2.0, 3.0, 4.0, 1.0, 5.0)
    assert finding.best.loss == 1.0


def test_files_decide_among_the_best_where_a_budget_is_measured(
    found: tuple[Finding, Detector, Path],
) -> None:
    finding, _, _ = found
    asked = finding.model_copy(update={"budgets": (parse_budget("-30% ms@onnxruntime:1t"),)})
    one, other = finding.finalists
    slow = confirm(asked, (one, other), (10.0,), [(9.0,), (7.2,)])
    assert slow.best.number == other.number and slow.best.measured == (7.2,)
    assert confirm(asked, (one, other), (10.0,), [(7.3,), (6.0,)]).best.number == one.number
    assert confirm(asked, (one, other), (10.0,), [(9.0,), (8.0,)]).best.number == other.number


@pytest.fixture(scope="module")
def taught() -> Detector:
    """As after training: files keep equal tensors, such as shifts that are all 0, only once."""
    detector = build(eresfd.naver(width=8), seed=0).eval()
    with torch.no_grad():
        for layer in detector.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.bias.normal_(std=0.1)
    return detector


def test_finalists_are_corrected_until_their_files_meet_the_budget(
    taught: Detector, tmp_path: Path
) -> None:
    search = SEARCH.model_copy(update={"budgets": (parse_budget("-30% size"),)})
    ground = search.ground(taught, context(tmp_path))
    sizes = ground.surface.costs.sizes.astype(float)
    right = ground.surface.place(np.linspace(0.2, 0.8, len(sizes)))
    assert fitted(ground, right).tolist() == right.tolist()

    # As if the prediction had flattered it: 30 % were foretold, and hardly any have gone.
    flattered = sizes - np.minimum(sizes - 1, 1)
    corrected = fitted(ground, flattered)
    (whole,), (before,), (after,) = measure(
        search.budgets,
        [taught, ground.cut(flattered), ground.cut(corrected)],
        ground.surface.costs,
    )
    assert whole is not None and before is not None and after is not None
    assert before > 0.75 * whole
    assert after == pytest.approx(0.7 * whole, rel=search.budgets[0].tolerance)


def test_bytes_of_a_file_are_foretold_and_measured(taught: Detector, tmp_path: Path) -> None:
    search = Search(
        budgets=("-30% size", "-20% macs@128x96"),
        trials=1,
        proxy=PROXY,
        finals=Finals(trained=0, verified=0),
    )
    finding, _ = search.find(taught, context(tmp_path))
    assert finding.measured_before[1] is None and finding.best.measured[0] is not None
    assert finding.best.measured[0] == pytest.approx(finding.best.costs[0], rel=0.01)
    assert finding.best.measured[0] <= 1.01 * finding.limits[0]


def test_without_pictures_there_is_no_search(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs pictures"):
        SEARCH(detector, Context(folder=tmp_path))


def test_a_front_reaches_from_the_budget_towards_the_whole_model(
    detector: Detector, tmp_path: Path
) -> None:
    search = SEARCH.model_copy(
        update={"front": True, "trials": 8, "finals": Finals(trained=0, verified=0)}
    )
    finding, _ = search.find(detector, context(tmp_path))
    assert max(finding.points) > finding.limits[0]
    assert finding.best.costs[0] <= finding.limits[0]
    costs = [one.costs[0] for one in finding.front]
    losses = [one.loss for one in finding.front]
    assert costs == sorted(costs) and losses == sorted(losses, reverse=True)
    study = optuna.load_study(study_name="slimface", storage=_storage(tmp_path))
    assert {trial.values[1] for trial in study.best_trials} <= set(finding.points)


def test_a_database_holds_a_study_too(detector: Detector, tmp_path: Path) -> None:
    search = SEARCH.model_copy(
        update={
            "storage": f"sqlite:///{tmp_path / 'study.db'}",
            "trials": 2,
            "finals": Finals(trained=0, verified=0),
        }
    )
    finding, _ = search.find(detector, context(tmp_path))
    again, _ = search.find(detector, context(tmp_path))
    assert seen(again) == seen(finding)
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize("url", ["nowhere", "sqlite:////nowhere/at/all.db"])
def test_a_database_out_of_reach_is_said(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        open_study(url, "slimface", {})


def test_zero_trials_and_no_budget_are_refused() -> None:
    for wrong in ({"trials": 0}, {"budgets": []}, {"max_rate": 1.0}, {"sampler": "magic"}):
        with pytest.raises(RecipeError):
            Search.parse({"budgets": ["-40% macs"], **wrong}, where="here")


def test_judging_is_deterministic_and_changes_statistics_alone(
    detector: Detector, tmp_path: Path
) -> None:
    bench = PROXY.bench(detector, context(tmp_path))
    one, other = build(eresfd.naver(width=8), seed=3), build(eresfd.naver(width=8), seed=3)
    assert bench.judge(one, {}) == bench.judge(other, {})
    for (name, before), after in zip(
        build(eresfd.naver(width=8), seed=3).named_parameters(), one.parameters(), strict=True
    ):
        assert torch.equal(before, after), name
    momenta = {m.momentum for m in one.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_re_estimated_statistics_are_those_of_the_crops(detector: Detector, tmp_path: Path) -> None:
    bench = PROXY.bench(detector, context(tmp_path))
    twin = build(eresfd.naver(width=8), seed=0)
    bench.mended(twin, {})
    (batch,) = bench.calibration
    with torch.no_grad():
        first = twin.base.conv1[0](twin.prepare(batch.images))
    torch.testing.assert_close(
        twin.base.conv1[1].running_mean, first.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        twin.base.conv1[1].running_var, first.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4
    )


def test_against_the_parent_the_parent_itself_loses_nothing(
    detector: Detector, tmp_path: Path
) -> None:
    bench = PROXY.model_copy(update={"against": "parent"}).bench(detector, context(tmp_path))
    assert bench.parent_loss == pytest.approx(0, abs=1e-9)
    assert bench.loss(build(eresfd.naver(width=8), seed=5)) > 0


def test_the_page_tells_the_search_and_runs_nothing(
    found: tuple[Finding, Detector, Path],
) -> None:
    finding, _, _ = found
    page = render(finding.model_copy(update={"model": "<script>alert(1)</script>"}))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "best so far" in page and page.count("<svg") == 3
    assert f"{finding.best.loss:.3f}" in page
    json.loads(finding.model_dump_json())


def test_the_verb_writes_model_page_and_table(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from slimface.cli.app import app
    from slimface.loading import load

    save(detector, tmp_path / "start.safetensors")
    monkeypatch.setattr("slimface.cli.search.source_of", lambda _: SCENES.model_dump())
    arguments = ["search", str(tmp_path / "start.safetensors"), "--budget", "-40% macs@128x96"]
    arguments += ["--trials", "2", "--trained", "0", "--verified", "0", "--json"]
    arguments += ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "best.safetensors")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["best"]["costs"][0] <= told["limits"][0]
    assert (tmp_path / "run" / "search.html").exists()
    load(tmp_path / "best.safetensors")


def test_a_reconstructed_candidate_starts_from_the_answers_of_the_whole(
    detector: Detector, tmp_path: Path
) -> None:
    proxy = PROXY.model_copy(update={"repair": "reconstruct"})
    search = SEARCH.model_copy(update={"proxy": proxy})
    ground = search.ground(detector, context(tmp_path))
    widths = ground.surface.place(np.ones(len(ground.surface.costs.names)))
    mended = ground.mended(widths)
    assert ground.judge(widths) == ground.bench.loss(mended)
    _, keep = ground.removal(widths)
    images = torch.cat([batch.images for batch in ground.bench.calibration])
    stays = remaining_outputs(detector, keep, ground.groups)
    wanted = reconstruct(detector, ground.cut(widths), stays, images, places=2048)
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(mended.state_dict()[name], tensor, msg=name)


def test_a_search_of_reconstructed_candidates_finishes(detector: Detector, tmp_path: Path) -> None:
    proxy = PROXY.model_copy(update={"repair": "reconstruct"})
    search = SEARCH.model_copy(update={"proxy": proxy, "trials": 4})
    finding, best = search.find(detector, context(tmp_path))
    assert len(finding.losses) == 4
    assert all(math.isfinite(loss) for loss in finding.losses)
    assert bool(torch.isfinite(best(torch.zeros(1, 3, 64, 64)).logits).all())
