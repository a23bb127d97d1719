"""`to_yaml`: a recipe as YAML that loads to the same recipe."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qtune.recipe.keys import SECTIONS, is_table_list
from qtune.recipe.paths import is_local
from qtune.recipe.scalars import scalar
from qtune.recipe.unread import unread

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.loading import Origin
    from qtune.recipe.section import Section
    from qtune.recipe.sections import Recipe

_PLAIN = re.compile(r"(\.{1,2}/)*[A-Za-z][A-Za-z0-9_./-]*|[0-9]+[KMGT]i?B")
_YAML_1_1_WORDS = frozenset(("y", "n", "yes", "no", "on", "off"))
_COMMENT_COLUMN = 48
_INPUTS = re.compile(
    r"model\.(name_or_path|tokenizer|chat_template)|data\.(train|eval)\.\d+\.(path|labels)|"
    r"loss\.teacher|eval\.tasks"
)


def to_yaml(
    recipe: Recipe, *, relative_to: Path, origins: Mapping[str, Origin] | None = None
) -> str:
    """Every value as YAML, local paths relative to the folder `relative_to`.

    A value's origin stands behind it as a comment. Keys that nothing reads are left out, as
    setting them would be a fault.
    """
    writer = _Writer(relative_to, origins or {}, skip=frozenset(unread(recipe)))
    lines: list[str] = []
    for section in SECTIONS:
        inside = list(writer.table(section, getattr(recipe, section), indent="  "))
        lines += [f"{section}:", *inside] if inside else []
    return "\n".join(lines) + "\n"


class _Writer:
    """Lines of YAML for the sections of one recipe."""

    def __init__(
        self, folder: Path, origins: Mapping[str, Origin], *, skip: frozenset[str]
    ) -> None:
        self._folder = folder
        self._origins = origins
        self._skip = skip

    def table(self, path: str, part: Section, *, indent: str) -> Iterator[str]:
        """The keys of a section, one a line."""
        for key in type(part).model_fields:
            value, name = getattr(part, key), f"{path}.{key}"
            if name in self._skip:
                continue
            if is_table_list(value):
                yield f"{indent}{key}:"
                for index, item in enumerate(value):
                    first, *rest = self.table(f"{name}.{index}", item, indent=f"{indent}    ")
                    yield f"{indent}  - {first.lstrip()}"
                    yield from rest
            else:
                yield self._line(f"{indent}{key}: {self._value(name, value)}", name)

    def _value(self, name: str, value: Any) -> str:
        if _INPUTS.fullmatch(name):
            several = isinstance(value, tuple)
            value = [self._relative(one) for one in value] if several else self._relative(value)
        return flow(value)

    def _relative(self, value: Any) -> Any:
        """A local path from the folder on; anything else as it is."""
        if not isinstance(value, str) or not is_local(value):
            return value
        relative = os.path.relpath(value, self._folder.resolve())
        return relative if relative.startswith("..") else f"./{relative}"

    def _line(self, text: str, name: str) -> str:
        origin = self._origins.get(name)
        if origin is None:
            return text
        comment = "".join(c if c.isprintable() else "?" for c in str(origin))
        return f"{text.ljust(_COMMENT_COLUMN)} # {comment}"


def flow(value: Any) -> str:
    """A value in one line of YAML, read alike by YAML 1.1 and 1.2."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(k)}: {flow(v)}' for k, v in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(flow, value))}]"
    return str(value)


def _float(value: float) -> str:
    mantissa, e, exponent = repr(value).partition("e")
    if e and "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}{e}{exponent}"


def _text(text: str) -> str:
    if (
        _PLAIN.fullmatch(text)
        and text.lower() not in _YAML_1_1_WORDS
        and isinstance(scalar(text), str)
    ):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escape(c) for c in quoted)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
