"""pydantic's errors as faults a person reads: file:line: key: what (hint)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.errors import Fault
from qtune.recipe import suggest
from qtune.recipe.inputs import SourceSection
from qtune.recipe.keys import METHODS, annotation_at, expects, field_at, item_kind, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from qtune.recipe.layers import Layer
    from qtune.recipe.node import Node

Path = tuple[str | int, ...]
_MISSING = {
    "model": "write model: {name_or_path: ...}",
    "data": "write data: {train: [{path: ...}]}",
    "data.train": "write data: {train: [{path: ...}]}",
}
_LONG = 100
_PARTS = ("method", "parts")
_ALONE = {
    "peft": "its layers are PEFT's own, which do not stand over or under others",
    "combination": "they are one list",
}
"""Methods that a list cannot hold, and why."""
_RANGES = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def faults_of(
    errors: Sequence[ErrorDetails], plain: Mapping[str, Any], layer: Layer, *, file: str
) -> dict[Path, Fault]:
    """One fault for each faulty key, by its path."""
    method = str(plain.get("method", {}).get("name", ""))
    groups: dict[Path, list[ErrorDetails]] = {}
    for error in errors:
        path = _path(error, plain, method)
        if not _is_echo(error, path, layer):
            groups.setdefault(path, []).append(error)
    return {
        path: _fault(path, group, layer, file=file, method=_method_at(path, plain) or method)
        for path, group in _by_value(groups).items()
    }


def _method_at(path: Path, plain: Mapping[str, Any]) -> str:
    """The method that a path inside the parts of a combination speaks of; else none."""
    if path[:2] != _PARTS or len(path) < 3:
        return ""
    part = plain["method"]["parts"][path[2]]
    return str(part.get("name", "")) if isinstance(part, dict) else ""


def _in_schema(path: Path) -> Path:
    """The path of a key in the method's own section: a part of a combination is one, too."""
    return ("method", *path[3:]) if path[:2] == _PARTS and len(path) > 3 else path


def _is_echo(error: ErrorDetails, path: Path, layer: Layer) -> bool:
    """Whether the error only follows from another one that is told anyway."""
    if error["type"] == "missing":
        return path[0] in layer.blamed
    # pydantic counts only the good items of a list
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _by_value(groups: dict[Path, list[ErrorDetails]]) -> dict[Path, list[ErrorDetails]]:
    """The branches of a union fail at the value and inside it: told once, at the value."""
    outer = [path for path in groups if len(path) > 1]
    return {
        path: group
        for path, group in groups.items()
        if not any(path != other and path[: len(other)] == other for other in outer)
    }


def node_at(path: Path, layer: Layer) -> Node | None:
    """The deepest value that was written on the way to `path`."""
    steps = list(_nodes(path, layer))
    return steps[-1] if steps else None


def _nodes(path: Path, layer: Layer) -> Iterator[Node]:
    section, *rest = path
    if str(section) in layer.sections:
        yield layer.sections[str(section)]
    node = layer.settings.get(str(section), {}).get(str(rest[0])) if rest else None
    for step in [*rest[1:], None]:
        if node is None:
            return
        yield node
        node = None if step is None else node.child(step)


def _path(error: ErrorDetails, plain: Mapping[str, Any], method: str) -> Path:
    """The key path of an error, without the names of union branches that pydantic adds."""
    location = list(error["loc"])
    if location[:2] == ["method", method] and len(location) > 2:
        del location[1]
    path: list[str | int] = []
    value: Any = plain
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if _has(value, step):
            value = value[step]
        elif not (last and error["type"] == "missing" and isinstance(step, str)):
            continue
        path.append(step)
    return tuple(path)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _fault(
    path: Path, errors: Sequence[ErrorDetails], layer: Layer, *, file: str, method: str
) -> Fault:
    node = node_at(path, layer)
    place = node.place if node else file
    key = ".".join(map(str, path))
    kinds = {error["type"] for error in errors}
    if "extra_forbidden" in kinds:
        return _unknown(path, node, method)
    if "missing" in kinds and isinstance(errors[0]["loc"][-1], str):
        hint = _MISSING.get(key) or _meaning(field_at(_in_schema(path), method=method))
        return Fault(message=f"{key}: missing", place=place, hint=hint)
    if "union_tag_invalid" in kinds:
        path = (*path, "name")
        key = ".".join(map(str, path))
        node = node_at(path, layer)
        place = node.place if node else place
    value = node.plain() if node else None
    what, hint = what_is_wrong(errors, annotation_at(_in_schema(path), method=method), value)
    key = named(key, node)
    return Fault(message=f"{key}: {what}", place=place, hint=hint)


def named(key: str, node: Node | None) -> str:
    """The key, and the name it was written under."""
    return f"{key} ({node.note})" if node is not None and node.note else key


def _unknown(path: Path, node: Node | None, method: str) -> Fault:
    assert node is not None
    section, *_, name = path
    if len(_in_schema(path)) == 2:
        return suggest.unknown(str(name), node, section=str(section), method=method)
    item = field_at((*path[:3], "path"), method=method)
    known = list(_item_keys(path, method)) if item else []
    return suggest.unknown_item(".".join(map(str, path)), str(name), node, known)


def _item_keys(path: Path, method: str) -> Iterator[str]:
    field = field_at(path[:2], method=method)
    kind = item_kind(field) if field else None
    yield from kind.model_fields if kind else ()


def what_is_wrong(errors: Sequence[ErrorDetails], annotation: Any, value: Any) -> tuple[str, str]:
    """What is wrong with a value, and the hint."""
    shown = show(value)
    for error in errors:
        kind, context = error["type"], error.get("ctx", {})
        if kind in _RANGES:
            word, name = _RANGES[kind]
            return f"must be {word} {context[name]:g}, not {shown}", ""
        if kind == "finite_number":
            return "not a finite number", ""
        if kind == "value_error":
            return f"{shown} {context['error']}", ""
        if kind == "union_tag_invalid" and isinstance(value, str) and value in _ALONE:
            return f"{shown} is no part of several methods: {_ALONE[value]}", "name it alone"
        if kind == "union_tag_invalid":
            return f"unknown method {shown}", suggest.close(str(value), METHODS)
        if kind == "string_too_short":
            return "an empty text", ""
        if kind == "too_short" and not value:
            return "an empty list", "at least one is needed"
    expected, hint = expects(annotation), _type_hint(value, annotation)
    if len(expected) > _LONG and hint.startswith("did you mean"):
        expected = "known"  # the nearest word says more than all of them
    return f"{shown} is not {expected}", hint


def _type_hint(value: Any, annotation: Any) -> str:
    expected = expects(annotation)
    if isinstance(value, str):
        return _text_hint(value, annotation)
    if "a whole number" in expected and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}"
    if expected == "text" and isinstance(value, int | float):
        return f'write "{show(value)}"'
    return ""


def _text_hint(value: str, annotation: Any) -> str:
    expected = expects(annotation)
    if "number" in expected and value.strip().replace("_", "").isdecimal():
        return f"write {value.strip().replace('_', '')}"
    if "true or false" in expected and value.lower() in ("yes", "on", "no", "off"):
        return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if annotation is SourceSection:
        return f"write {{path: {value}}}"
    if expected == "a list of tables":
        return f"write [{{path: {value}}}]"
    if expected.startswith("a list"):
        return f"write [{value}]"
    return suggest.close(value, words_of(annotation))


def _meaning(field: FieldInfo | None) -> str:
    return (field.description or "").rstrip(".") if field else ""


def show(value: Any) -> str:
    """A value as it stands in a message, cut short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table of keys"
    if value is None:
        return "an empty value"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
