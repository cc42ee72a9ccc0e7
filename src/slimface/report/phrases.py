"""Phrases: what each kind of step did, in a few words.

A new kind of step costs a line of ``PHRASES``; a test compares them with what a recipe may hold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimface.report.run import Entry, mapping, number, sequence

Settings = Mapping[str, Any]
Phrase = Callable[[Settings, Sequence[Entry]], str]
"""From the settings of a step and its records to words; empty if there is nothing to say."""


def phrase(kind: str, settings: Settings, records: Sequence[Entry]) -> str:
    """Return what a step did; empty for a kind that is not known, or did nothing to the model."""
    of_kind = PHRASES.get(kind)
    return of_kind(settings, records) if of_kind is not None else ""


def _nothing(settings: Settings, records: Sequence[Entry]) -> str:
    return ""


def _train(settings: Settings, records: Sequence[Entry]) -> str:
    epochs = _epochs(records)
    taught = _teacher(settings)
    verb = f"taught by {taught}" if taught else "trained"
    return f"{verb} for {_counted(epochs, 'epoch')}" if epochs else ""


def _train_net(settings: Settings, records: Sequence[Entry]) -> str:
    epochs = _epochs(records)
    return (
        f"trained {settings.get('net', 'a net')} for {_counted(epochs, 'epoch')}" if epochs else ""
    )


def _prune(settings: Settings, records: Sequence[Entry]) -> str:
    by = mapping(settings.get("importance")).get("kind")
    by = by or next((e.record.get("importance") for e in records if e.kind == "prune"), None)
    return f"removed {_amount(settings)}{f' by {str(by).upper()}' if by else ''}"


def _iterative(settings: Settings, records: Sequence[Entry]) -> str:
    rounds = number(settings.get("rounds")) or 0
    return f"{_prune(mapping(settings.get('prune')), records)} in {_counted(rounds, 'round')}"


def _prune_net(settings: Settings, records: Sequence[Entry]) -> str:
    net = mapping(settings.get("train")).get("net", "a net")
    return f"{_iterative(settings, records)} from {net}"


def _soft(settings: Settings, records: Sequence[Entry]) -> str:
    inner = mapping(settings.get("prune"))
    by = mapping(inner.get("importance")).get("kind")
    verb = "softly pruned" if settings.get("end") != "zero" else "softly zeroed"
    return f"{verb} {_amount(inner)}{f' by {str(by).upper()}' if by else ''}{_over(records)}"


def _fade(settings: Settings, records: Sequence[Entry]) -> str:
    return f"faded out {_amount(mapping(settings.get('prune')))}{_over(records)}"


def _b_fpgm(settings: Settings, records: Sequence[Entry]) -> str:
    target = number(settings.get("target"))
    what = f"{100 * target:g} % of the parameters" if target is not None else "filters"
    return f"pruned {what} at rates found by B-FPGM"


def _soft_search(settings: Settings, records: Sequence[Entry]) -> str:
    return f"softly {_b_fpgm(mapping(settings.get('search')), records)}{_over(records)}"


def _search(settings: Settings, records: Sequence[Entry]) -> str:
    trials = number(settings.get("trials")) or 0
    budgets = [str(one) for one in sequence(settings.get("budgets"))]
    meeting = f" for {' and '.join(budgets)}" if budgets else ""
    return f"searched {_counted(trials, 'candidate')}{meeting}"


def _shrink(settings: Settings, records: Sequence[Entry]) -> str:
    gone = next((number(e.record.get("removed")) for e in records if e.kind == "shrink"), None)
    what = _counted(gone, "zeroed filter") if gone is not None else "zeroed filters"
    return f"removed {what}{'' if settings.get('fold') else ' without loss'}"


def _pseudo_label(settings: Settings, records: Sequence[Entry]) -> str:
    return f"trained on what {settings.get('teacher', 'a teacher')} finds{_over(records)}"


def _export(settings: Settings, records: Sequence[Entry]) -> str:
    named = next((e.record.get("format") for e in records if e.kind == "export"), None)
    return f"exported to {format_name(named or mapping(settings.get('format')).get('kind'))}"


def _qat(settings: Settings, records: Sequence[Entry]) -> str:
    net = mapping(settings.get("train")).get("net")
    named = f"{net} " if net else ""
    return f"trained {named}with rounding to {_bits(settings)}{_over(records)}"


def _quantize(settings: Settings, records: Sequence[Entry]) -> str:
    return f"quantised to {_bits(settings)} for {settings.get('runtime', 'a runtime')}"


def _bits(settings: Settings) -> str:
    return "four bits" if settings.get("bits") == 4 else "eight bits"


PHRASES: Mapping[str, Phrase] = {
    "train": _train,
    "train_net": _train_net,
    "prune": _prune,
    "iterative_prune": _iterative,
    "prune_net": _prune_net,
    "soft_prune": _soft,
    "fade_out": _fade,
    "reinit": lambda settings, records: "given new random weights",
    "search": _search,
    "b_fpgm": _b_fpgm,
    "soft_search": _soft_search,
    "shrink": _shrink,
    "pseudo_label": _pseudo_label,
    "qat": _qat,
    "quantize": _quantize,
    "evaluate": _nothing,
    "export": _export,
    "benchmark": _nothing,
}
"""Kind of a step -> its phrase."""


def format_name(kind: object) -> str:
    """Return a format of files as people write it."""
    return {"onnx": "ONNX", "None": "model"}.get(str(kind), str(kind))


def _amount(prune: Settings) -> str:
    """What a pruning was told to remove."""
    allocator = mapping(prune.get("allocator"))
    budgets = [allocator.get("budget"), *sequence(allocator.get("also"))]
    # With a true minus, as all figures of the card.
    meant = [one.replace("-", "−", 1) for one in budgets if isinstance(one, str)]
    if meant:
        return f"channels to meet {' and '.join(meant)}"
    rate = number(allocator.get("rate"))
    return f"{100 * rate:g} % of the channels" if rate is not None else "channels"


def _teacher(settings: Settings) -> str:
    criterion = mapping(settings.get("criterion"))
    while criterion:
        if criterion.get("kind") == "distill":
            return str(criterion.get("teacher", "a teacher")).replace("step:", "step ")
        criterion = mapping(criterion.get("of"))
    return ""


def _over(records: Sequence[Entry]) -> str:
    epochs = _epochs(records)
    return f" over {_counted(epochs, 'epoch')}" if epochs else ""


def _epochs(records: Sequence[Entry]) -> int:
    return len({e.record.get("epoch") for e in records if e.kind == "epoch"})


def _counted(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"
