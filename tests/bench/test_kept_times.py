from pathlib import Path

import pytest

from slimface.bench.kept_times import KeptTimes


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptTimes:
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path))
    return KeptTimes("onnxruntime", 1)


def test_what_was_kept_is_there_for_the_next(kept: KeptTimes) -> None:
    kept.add("layers", {"a": 1.5})
    kept.add("layers", {"b": 2.5})
    kept.add("networks", {"a": [3.0]})
    again = KeptTimes("onnxruntime", 1)
    assert again.read("layers") == {"a": 1.5, "b": 2.5}
    assert again.read("networks") == {"a": [3.0]}


def test_other_threads_have_other_times(kept: KeptTimes) -> None:
    kept.add("layers", {"a": 1.5})
    assert KeptTimes("onnxruntime", 2).read("layers") == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"layers": 3}'])
def test_a_damaged_file_is_measured_again(kept: KeptTimes, content: str) -> None:
    kept.path.parent.mkdir(parents=True)
    kept.path.write_text(content, encoding="utf-8")
    assert kept.read("layers") == {}
    kept.add("layers", {"a": 1.5})
    assert kept.read("layers") == {"a": 1.5}
