from pathlib import Path

import pytest

from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.importance import L1
from slimface.compress.prune.step import Prune
from slimface.data.source import DrawnScenes
from slimface.errors import RecipeError
from slimface.recipe.recipe import Recipe, read_recipe, write_recipe
from slimface.train.schedule import Schedule
from slimface.train.step import Train

TEXT = """
name: small
pretrained: false
source: {kind: drawn, train: 20, val: 5}
steps:
  - kind: train
    schedule: {epochs: 2}
  - kind: prune
    importance: {kind: l1}
    allocator: {rate: 0.25}
"""

VALUE = Recipe(
    name="small",
    pretrained=False,
    source=DrawnScenes(train=20, val=5),
    steps=(
        Train(schedule=Schedule(epochs=2)),
        Prune(importance=L1(), allocator=Uniform(rate=0.25)),
    ),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


def test_yaml_and_python_spell_the_same_value(file: Path) -> None:
    assert read_recipe(file) == VALUE
    assert read_recipe(file).fingerprint() == VALUE.fingerprint()


def test_a_written_recipe_reads_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(write_recipe(VALUE))
    assert read_recipe(path) == VALUE


def test_a_value_can_be_changed_from_the_command_line(file: Path) -> None:
    changed = read_recipe(file, ["steps.1.allocator.rate=0.4", "seed=7"])
    assert changed.seed == 7
    assert isinstance(changed.steps[1], Prune) and changed.steps[1].allocator.rate == 0.4


@pytest.mark.parametrize("change", ["steps.9.rate=1", "seed", "name.x=1", "steps.x.rate=1"])
def test_a_change_at_no_place_is_refused(file: Path, change: str) -> None:
    with pytest.raises(RecipeError, match="no such place"):
        read_recipe(file, [change])


def test_every_mistake_is_named_with_its_place_and_the_nearest_right_key(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(TEXT.replace("rate: 0.25", "rate: 1.5").replace("epochs", "epoch"))
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    text = str(caught.value)
    assert "bad.yaml has 3 mistakes" in text
    assert "steps.1.prune.allocator.uniform.rate" in text and "1.5" in text
    assert "did you mean 'epochs'?" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"steps: [", "is not YAML"),
        (b"- 1\n- 2\n", "holds no mapping"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"name: x\nsteps: []\n", "steps"),
        (b"name: ../x\nsteps: [{kind: evaluate}]\n", "name"),
        (b"name: x\nsteps: [{kind: shrnk}]\n", "shrnk"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        read_recipe(path)


def test_yaml_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError, match="is not YAML"):
        read_recipe(path)
