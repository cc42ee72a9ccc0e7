"""Value: frozen, validated, fingerprinted parameters."""

import difflib
import hashlib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from slimface.errors import RecipeError


class Value(BaseModel):
    """An immutable, validated, serialisable set of parameters.

    Equal fields make equal values, and equal values have equal fingerprints, so a value can be a
    cache key. Unknown fields are errors: a typo never becomes a silent default.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON form, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def parse(cls, data: Mapping[str, Any] | str | bytes, *, where: str) -> Self:
        """Validate ``data`` (a mapping, or JSON text) and explain every mistake for people.

        Raises:
            RecipeError: One line a mistake, with its place; a misspelt key is answered with the
                nearest right one.
        """
        try:
            if isinstance(data, str | bytes):
                return cls.model_validate_json(data)
            return cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(explain(error, where=where, model=cls)) from None


def explain(error: ValidationError, *, where: str, model: type[BaseModel]) -> str:
    """Return pydantic's complaints as lines a person can act on."""
    found = error.errors(include_url=False, include_context=False)
    # A list whose items are wrong is itself reported as too short: the items are the mistake.
    mistakes = [
        one for one in found if not any(_is_inside(other["loc"], one["loc"]) for other in found)
    ]
    lines = [f"{where} has {len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}:"]
    for mistake in mistakes:
        place = ".".join(str(part) for part in mistake["loc"]) or "the whole"
        text = mistake["msg"]
        if mistake["type"] == "extra_forbidden":
            wrong = str(mistake["loc"][-1])
            near = difflib.get_close_matches(wrong, _field_names(model), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            text = f"unknown key '{wrong}'{hint}"
        else:
            text = f"{text} (got {_short(mistake['input'])})"
        lines.append(f"  {place}: {text}")
    lines.append("Correct the lines named above and run the command again.")
    return "\n".join(lines)


def _is_inside(place: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _field_names(model: type[BaseModel]) -> list[str]:
    """Names of all fields of ``model`` and of every value type it can hold."""
    names: set[str] = set()
    seen: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            for part in schema.values():
                walk(part)
        elif isinstance(schema, list):
            for part in schema:
                walk(part)

    if model.__name__ not in seen:
        seen.add(model.__name__)
        walk(model.model_json_schema())
    return sorted(names)


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
