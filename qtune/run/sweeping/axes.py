"""`--over KEY=A,B,...` or KEY=LOW..HIGH: what is varied, and how a combination is called."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError
from qtune.recipe.node import Source
from qtune.recipe.scalars import scalar
from qtune.recipe.syntax import parse
from qtune.recipe.writing import flow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FORM = "write --over section.key=A,B,..., such as --over optim.learning_rate=1e-4,2e-4"
_FOREIGN = re.compile(r"[^\w.=,+-]+")
_SPAN = re.compile(r"([^\s,:]+?)\.\.([^\s,:]+)(?::([^\s,:]+))?")
_LONGEST = 120  # of a folder's name


@dataclass(frozen=True)
class Span:
    """A range that is searched: both ends are in it; on a logarithmic scale, or in steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 0))


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and the values that it takes: those listed, or of a range its ends."""

    key: str
    values: tuple[Any, ...]
    span: Span | None = None


def read_axes(texts: Sequence[str]) -> list[Axis]:
    """The axes in order; `UsageError` for what is not of the form, or a key that comes twice."""
    axes = [_axis(text) for text in texts]
    keys = [axis.key for axis in axes]
    if not keys:
        raise UsageError("nothing to vary", place="--over", hint=_FORM)
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"{key} comes twice", place="--over", hint="list its values in one")
    return axes


def setting(key: str, value: Any) -> str:
    """As `--set` takes it."""
    return f"{key}={flow(value)}"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last part, where that says which one it is."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: key if last.count(name) > 1 else name for key, name in zip(keys, last, strict=True)
    }


def label_of(settings: Mapping[str, Any]) -> str:
    """The name of a combination, which can be a folder's."""
    names = short_names(list(settings))
    said = ",".join(f"{names[key]}={shown(value)}" for key, value in settings.items())
    label = _FOREIGN.sub("-", said).strip("-.")
    if label == said and len(label) <= _LONGEST:
        return label
    # what was cut or replaced must not make two combinations one
    told = "".join(setting(*each) for each in settings.items())
    return f"{label[:_LONGEST]}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def shown(value: Any) -> str:
    """A value as people write it."""
    return repr(value) if isinstance(value, float) else flow(value).strip('"')


def _axis(text: str) -> Axis:
    place = f"--over {text}"
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise UsageError("not of the form key=A,B,...", place=place, hint=_FORM)
    span = _SPAN.fullmatch(values.strip())
    if span is not None:
        return _ranged(key.strip(), span, place)
    source = Source(name=place, label=place, folder=Path.cwd(), kind="override")
    try:
        found = parse(f"[{values}]", source).plain()
    except UsageError as error:
        hint = "a text with commas or signs needs quotes of its own"
        raise UsageError(error.faults[0].message, place=place, hint=hint) from None
    if not found or len(set(map(flow, found))) < len(found):
        fault = "a value comes twice" if found else "no values"
        raise UsageError(fault, place=place, hint=_FORM)
    return Axis(key.strip(), tuple(found))


def _ranged(key: str, found: re.Match[str], place: str) -> Axis:
    low, high = scalar(found[1]), scalar(found[2])
    scale = "log" if found[3] == "log" else scalar(found[3]) if found[3] else None
    numbers = [low, high, *([] if scale in (None, "log") else [scale])]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        hint = "write LOW..HIGH, LOW..HIGH:log or LOW..HIGH:STEP"
        raise UsageError("not a range of numbers", place=place, hint=hint)
    log, step = scale == "log", None if isinstance(scale, str) else scale
    span = Span(low, high, log=log, step=step)  # type: ignore[arg-type]
    if not span.low < span.high or (log and span.low <= 0) or (span.step or 1) <= 0:
        hint = "its low end comes first; a logarithm and a step are above 0"
        raise UsageError("not a range", place=place, hint=hint)
    return Axis(key, (low, high), span)
