import json

import pytest
import typer
from typer.testing import CliRunner

from slimface.cli.compare import compare
from slimface.cli.evaluate import evaluate, input_rule
from slimface.core.faces import Faces
from slimface.core.record import Longest, Multiscale, Original
from slimface.data.drawn import Drawn, write_drawn
from slimface.data.widerface import read_widerface
from slimface.deploy.pipeline import Pipeline
from slimface.errors import MissingError, ProtocolError, UsageError
from slimface.evaluate.predictions import write_predictions

app = typer.Typer()
app.command()(evaluate)
app.command()(compare)


def run(*words):
    """What a command prints; its errors fly, as ``cli.app`` expects."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write_drawn(Drawn(count=4, height_px=160, width_px=160, seed=3), root, "val")
    return root


@pytest.fixture(scope="module")
def perfect(root, tmp_path_factory):
    """A detector that knows the truth."""
    folder = tmp_path_factory.mktemp("perfect")
    pictures = read_widerface(root, "val")
    write_predictions(folder, [one.name for one in pictures], [one.faces for one in pictures])
    return folder


def test_perfect_predictions_score_one(root, perfect):
    result = json.loads(run("evaluate", "--data", root, "--predictions", perfect, "--json"))
    assert result["subsets"][0]["average_precision"] == 1
    assert result["protocol"]["input"] == {"kind": "external"}


def test_options_state_how_predictions_were_made(root, perfect):
    words = ["--predictions", perfect, "--input", "longest:640", "--score", "0.02"]
    protocol = json.loads(run("evaluate", "--data", root, *words, "--json"))["protocol"]
    assert protocol["input"] == {"kind": "longest", "longest_px": 640}
    assert (protocol["score_floor"], protocol["nms_overlap"]) == (0.02, None)


def test_a_limit_is_stamped(root, perfect):
    words = ["--predictions", perfect, "--limit", 3, "--json"]
    protocol = json.loads(run("evaluate", "--data", root, *words))["protocol"]
    assert (protocol["pictures"], protocol["pictures_in_truth"]) == (3, 4)


def test_the_table_shows_figure_interval_and_stamp(root, perfect, tmp_path):
    out = tmp_path / "new" / "result.json"
    text = run("evaluate", "--data", root, "--predictions", perfect, "--out", out)
    stored = json.loads(out.read_text())
    assert stored["kind"] == "evaluation"
    assert "100.0 to 100.0" in text
    assert text.count("│ all") == 1
    assert not list(tmp_path.rglob("*.partial"))


@pytest.fixture
def model(tmp_path):
    """A detector of random weights, in a file."""
    pytest.importorskip("torch")
    from slimface.model import zoo
    from slimface.model.build import build
    from slimface.model.checkpoint import save

    save(build(zoo.entry("eresfd").spec), tmp_path / "random.safetensors")
    return tmp_path / "random.safetensors"


def test_a_model_is_evaluated_and_an_interruption_is_made_good(root, model, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    words = ["evaluate", model, "--data", root, "--threads", 1, "--json"]
    whole = json.loads(run(*words))
    assert whole["model"] == "random"
    assert not list((tmp_path / "home").rglob("*.jsonl"))

    asked = []

    def stopping(self, *args):
        asked.append(args)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return detect(self, *args)

    detect = Pipeline.detect
    monkeypatch.setattr(Pipeline, "detect", stopping)
    CliRunner().invoke(app, [str(word) for word in words])
    assert len(list((tmp_path / "home").rglob("*.jsonl"))) == 1
    resumed = json.loads(run(*words))
    assert len(asked) == 5
    assert resumed["subsets"] == whole["subsets"]
    assert not list((tmp_path / "home").rglob("*.jsonl"))


def test_results_are_compared_in_one_table(root, perfect, tmp_path):
    names = [one.name for one in read_widerface(root, "val")]
    write_predictions(tmp_path / "blind", names, [Faces.none()] * len(names))
    for name, folder in (("a", perfect), ("b", tmp_path / "blind")):
        out = tmp_path / f"{name}.json"
        run("evaluate", "--data", root, "--predictions", folder, "--out", out)
    data = json.loads(run("compare", tmp_path / "a.json", tmp_path / "b.json", "--json"))
    assert len(data) == 1
    blind = data[0]["evaluations"][1]["subsets"]["all"]
    assert blind["against_first"] == {"low": -1, "high": -1, "doubt": 0}
    text = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert "-100.0" in text


def test_mixing_protocols_is_refused_unless_asked_for(root, perfect, tmp_path):
    run("evaluate", "--data", root, "--predictions", perfect, "--out", tmp_path / "a.json")
    other = json.loads((tmp_path / "a.json").read_text())
    other["protocol"]["score_floor"] = 0.5
    (tmp_path / "b.json").write_text(json.dumps(other))
    with pytest.raises(ProtocolError, match="score_floor is None in"):
        run("compare", tmp_path / "a.json", tmp_path / "b.json")
    text = run("compare", tmp_path / "a.json", tmp_path / "b.json", "--anyway")
    assert text.count("┏") == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "Name a model, or give --predictions"),
        (["eresfd", "--predictions", "p"], "one of the two"),
        (["--predictions", "p", "--folder", "f"], "there is no model"),
        (["--predictions", "p", "--input", "huge"], "--input is 'huge'"),
        (["eresfd", "--input", "huge"], "--input is 'huge'"),
        (["eresfd", "--input", "longest"], "--input is 'longest'"),
        (["eresfd", "--input", "longest:0"], "--input is 'longest:0'"),
        (["eresfd", "--input", "multiscale", "--max-pixels", "0"], "needs a limit"),
        (["eresfd", "--keep-lone"], "a rule of voting"),
        (["eresfd", "--truth", "mine"], "--truth is 'mine'"),
        (["eresfd", "--truth", "wider", "--split", "train"], "of the split val"),
    ],
)
def test_wrong_usage_is_said_before_any_work(root, words, what, monkeypatch):
    monkeypatch.delenv("SLIMFACE_WEIGHTS", raising=False)
    with pytest.raises(UsageError, match=what):
        run("evaluate", *words, "--data", root)


@pytest.mark.parametrize("option", ["--out", "--save-predictions", "--folder"])
def test_a_place_that_cannot_be_written_is_named_before_any_work(root, tmp_path, option):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is not a folder"):
        run("evaluate", "no-such-model", option, tmp_path / "file" / "x.json", "--data", root)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingError, match="nowhere"):
        run("evaluate", "eresfd", "--data", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("original", Original(max_pixels=99)),
        ("longest:640", Longest(longest_px=640)),
        ("multiscale", Multiscale(max_pixels=99, keep_lone=True)),
    ],
)
def test_input_rules_are_read_as_they_are_spelled(text, rule):
    assert input_rule(text, 99, text == "multiscale") == rule


def test_zero_pixels_means_no_limit():
    assert input_rule("original", 0, False) == Original(max_pixels=None)
