import pytest
from pydantic import Field, ValidationError

from slimface.core.value import Value
from slimface.errors import RecipeError


class Inner(Value):
    strength: float = Field(default=1.0, gt=0)


class Outer(Value):
    name: str
    rate: float = 0.5
    inner: Inner = Inner()


def test_equal_fields_make_equal_fingerprints():
    assert Outer(name="a").fingerprint() == Outer(name="a", rate=0.5).fingerprint()
    assert Outer(name="a").fingerprint() != Outer(name="a", rate=0.25).fingerprint()


def test_values_cannot_be_changed():
    with pytest.raises(ValidationError):
        Outer(name="a").rate = 1.0


def test_what_is_written_is_read_back():
    value = Outer(name="a", inner=Inner(strength=2))
    assert Outer.parse(value.model_dump_json(), where="here") == value
    assert Outer.parse(value.model_dump(), where="here") == value


def test_an_unknown_key_is_answered_with_the_nearest_right_one():
    with pytest.raises(RecipeError, match="unknown key 'rat'; did you mean 'rate'"):
        Outer.parse({"name": "a", "rat": 0.1}, where="recipe.yaml")


def test_an_unknown_key_inside_is_named_with_its_place():
    with pytest.raises(RecipeError) as caught:
        Outer.parse({"name": "a", "inner": {"strenght": 3}}, where="recipe.yaml")
    assert "inner.strenght: unknown key 'strenght'; did you mean 'strength'?" in str(caught.value)


def test_every_mistake_is_named_at_once():
    with pytest.raises(RecipeError) as caught:
        Outer.parse({"rate": "much", "inner": {"strength": -1}}, where="recipe.yaml:3")
    text = str(caught.value)
    assert text.startswith("recipe.yaml:3 has 3 mistakes:")
    assert "name: Field required" in text
    assert "rate:" in text
    assert "'much'" in text
    assert "inner.strength:" in text


@pytest.mark.parametrize("text", ["", "[]", '{"name": ', '{"name": "a", "rate": NaN}'])
def test_text_that_is_no_such_object_is_refused(text):
    with pytest.raises(RecipeError):
        Outer.parse(text, where="here")
