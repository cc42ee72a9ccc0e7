import pytest
from pydantic import TypeAdapter, ValidationError

from slimface.core.budget import Budget, parse_budget
from slimface.errors import UsageError


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("60k params", Budget(unit="params", amount=60_000)),
        ("-40% params", Budget(unit="params", amount=40, relative=True)),
        ("−12.5% macs", Budget(unit="macs", amount=12.5, relative=True)),
        ("150M macs", Budget(unit="macs", amount=150e6)),
        (" 1.5G macs@640x480 ", Budget(unit="macs", amount=1.5e9, size_px=(480, 640))),
        ("300 kB", Budget(unit="size", amount=3e5)),
        ("0.5MB@ncnn", Budget(unit="size", amount=5e5, runtime="ncnn")),
        ("-40% size", Budget(unit="size", amount=40, relative=True)),
        ("12ms@onnxruntime:1t", Budget(unit="ms", amount=12, runtime="onnxruntime", threads=1)),
        (
            "-30% ms@onnxruntime:1t:640x480",
            Budget(
                unit="ms",
                amount=30,
                relative=True,
                runtime="onnxruntime",
                threads=1,
                size_px=(480, 640),
            ),
        ),
    ],
)
def test_what_people_write_is_read_and_written_back(text: str, want: Budget) -> None:
    assert parse_budget(text) == want
    assert parse_budget(str(want)) == want
    assert Budget.model_validate_json(want.model_dump_json()) == want


def test_in_yaml_a_budget_is_its_text() -> None:
    assert TypeAdapter(Budget).validate_python("-40% macs") == parse_budget("-40% macs")
    assert parse_budget("-40% macs").model_dump(mode="json") == "-40% macs"


def test_the_target_is_what_may_be_left() -> None:
    assert parse_budget("-40% macs").target(1000) == pytest.approx(600)
    assert parse_budget("60k params").target(92_208) == 60_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("40% params", "has a minus"),
        ("-60k params", "only a share"),
        ("-100% macs", "leaves nothing"),
        ("0 params", "asks for nothing"),
        ("60k", "is not understood"),
        ("fast", "is not understood"),
        ("", "is not understood"),
        ("-40% B", "mixes a share with bytes"),
        ("300 size", "mixes a share with bytes"),
        ("300 kB@640x480", "'640x480'"),
        ("60k params@640x480", "do not depend"),
        ("-30% ms", "in which runtime"),
        ("-30% macs@640", "'640'"),
        ("-30% macs@0x480", "'0x480'"),
        ("-30% ms@onnxruntime:0t", "'0t'"),
        ("-30% ms@onnxruntime:openvino", "'openvino'"),
    ],
)
def test_what_is_no_budget_is_answered_with_examples(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_budget(text)
    assert "'-40% params'" in str(caught.value).splitlines()[-1]
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(Budget).validate_python(text)
