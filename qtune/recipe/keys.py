"""What the schema knows: sections, their keys, and what each key expects in words."""

from __future__ import annotations

import functools
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from qtune.recipe.methods import MethodConfig
from qtune.recipe.section import Section
from qtune.recipe.sections import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

METHODS: dict[str, type[Section]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(MethodConfig)[0])
}
SECTIONS: tuple[str, ...] = tuple(Recipe.model_fields)


def section_kinds(section: str) -> tuple[type[Section], ...]:
    """The classes a section may be read as: one, or one a method."""
    if section == "method":
        return tuple(METHODS.values())
    kind = Recipe.model_fields[section].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, Section)
    return (kind,)


@functools.cache
def keys_of(section: str) -> dict[str, FieldInfo]:
    """The keys of a section; of the method section those of every method."""
    return {k: f for kind in section_kinds(section) for k, f in kind.model_fields.items()}


def sections_with(key: str) -> list[str]:
    """The sections that have this key."""
    return [section for section in SECTIONS if key in keys_of(section)]


def is_key(path: str) -> bool:
    """Whether `section.key` exists."""
    section, _, key = path.partition(".")
    return section in SECTIONS and key in keys_of(section)


def item_kind(field: FieldInfo) -> type[Section] | None:
    """The section class of a list of tables, such as the sources of data.train."""
    arguments = get_args(field.annotation)
    kind = arguments[0] if get_origin(field.annotation) is tuple and arguments else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def is_table_list(value: Any) -> bool:
    """Whether a value is a list of tables, such as the sources of data.train."""
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Section)


def leaves(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Every key of a recipe with its value: `optim.learning_rate`, `data.train.0.path`."""
    for section in SECTIONS:
        yield from _leaves(section, getattr(recipe, section))


def _leaves(path: str, part: Section) -> Iterator[tuple[str, Any]]:
    for key in type(part).model_fields:
        value = getattr(part, key)
        if is_table_list(value):
            for index, item in enumerate(value):
                yield from _leaves(f"{path}.{key}.{index}", item)
        else:
            yield f"{path}.{key}", value


def field_at(path: tuple[str | int, ...], *, method: str) -> FieldInfo | None:
    """The schema's field of a key path; `method` picks the keys of the method section."""
    section, *rest = path
    if section not in SECTIONS or not rest:
        return None
    kind = METHODS.get(method) if section == "method" else section_kinds(str(section))[0]
    field = kind.model_fields.get(str(rest[0])) if kind else None
    item = item_kind(field) if field else None
    if item is not None and len(rest) > 2:
        return item.model_fields.get(str(rest[2]))
    return field


def annotation_at(path: tuple[str | int, ...], *, method: str) -> Any:
    """The type that is expected at a key path, or below it in a list or table of values."""
    field = field_at(path, method=method)
    if field is None:
        return None
    listed = item_kind(field_at(path[:2], method=method) or field) is not None
    depth = 4 if listed and len(path) > 3 else 2
    annotation: Any = field.annotation
    for step in path[depth:]:
        arguments = get_args(annotation)
        if get_origin(annotation) is dict:
            annotation = arguments[1]
        elif get_origin(annotation) is tuple:
            fixed = Ellipsis not in arguments and isinstance(step, int)
            annotation = arguments[int(step)] if fixed else arguments[0]
        annotation = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return annotation


def expects(annotation: Any) -> str:
    """A type in a person's words: `a whole number`, `auto or true or false`."""
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return expects(arguments[0])
    if kind is Literal:
        words = ", ".join(str(word) for word in arguments)
        return words if len(arguments) == 1 else f"one of {words}"
    if kind is tuple:
        return _expects_list(arguments)
    if kind is dict:
        return f"a table from names to {_plural(expects(arguments[1]))}"
    if arguments:  # a union
        *first, last = (expects(a) for a in arguments if a is not NoneType)
        return f"{', '.join(first)} or {last}" if first else last
    words_of = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words_of.get(annotation, "a table of keys")


def _expects_list(arguments: tuple[Any, ...]) -> str:
    count = "" if Ellipsis in arguments else f"{len(arguments)} "
    return f"a list of {count}{_plural(expects(arguments[0]))}"


def _plural(words: str) -> str:
    if words == "text":
        return "names"
    if words == "a table of keys":
        return "tables"
    return f"{words[2:]}s" if words.startswith("a ") else words.removeprefix("one of ")


def words_of(annotation: Any) -> list[str]:
    """The texts that a key takes by name."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for part in get_args(annotation) for word in words_of(part)]
