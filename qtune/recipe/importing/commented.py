"""A converted recipe as YAML that says of each value where it comes from."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.recipe.keys import SECTIONS, keys_of
from qtune.recipe.writing import flow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qtune.recipe.importing.convert import Imported
    from qtune.recipe.importing.draft import Left
    from qtune.recipe.node import Node

_COLUMN = 40
_WIDTH = 96
_MANY = 3
_HEADINGS = (
    ("Not in qtune", ("not in qtune",)),
    ("Left to the plan, or not needed", ("left to the plan", "not needed")),
)
_PATHS = ("model.name_or_path", "model.tokenizer")


def commented(imported: Imported, folder: Path) -> str:
    """The whole text: what it was, what to look at, the settings, and what was left out."""
    lines = [f"# Converted from {imported.origin} ({imported.tool}) by qtune import."]
    if imported.remarks:
        lines += ["#", "# To look at:"]
        for remark in imported.remarks:
            lines += _bullet(remark)
    for section in SECTIONS:
        keys = imported.settings.get(section)
        if keys:
            lines += ["", f"{section}:", *_section(section, keys, folder)]
    for heading, kinds in _HEADINGS:
        told = [one for one in imported.left if one.kind in kinds]
        if told:
            lines += ["", f"# {heading}:"]
            for bullet in by_reason(told):
                lines += _bullet(bullet)
    return "\n".join(lines) + "\n"


def by_reason(left: Iterable[Left]) -> Iterator[str]:
    """`key (value), key (value): reason`, a line a reason; a table of many keys once."""
    groups: dict[str, list[Left]] = {}
    for one in left:
        groups.setdefault(one.reason, []).append(one)
    for reason, own in groups.items():
        tables = Counter(one.key.rpartition(".")[0] for one in own)
        named: list[str] = []
        for one in own:
            table = one.key.rpartition(".")[0]
            name = f"{table}.*" if table and tables[table] > _MANY else f"{one.key} ({one.value})"
            if name not in named:
                named.append(name)
        yield f"{', '.join(named)}: {reason}"


def _bullet(text: str) -> list[str]:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return textwrap.wrap(
        shown, _WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_long_words=False
    )


def _section(section: str, keys: dict[str, Node], folder: Path) -> Iterator[str]:
    """The keys in the order of the schema."""
    for key in keys_of(section):
        node = keys.get(key)
        if node is None or node.value is None:
            continue
        if section == "data" and key in ("train", "eval") and isinstance(node.value, list):
            yield _line(f"  {key}:", node)
            for item in node.value:
                yield from _item(item.plain(), folder)
            continue
        value = node.plain()
        if f"{section}.{key}" in _PATHS:
            value = _relative(value, folder)
        yield _line(f"  {key}: {flow(value)}", node)


def _item(table: dict[str, Any], folder: Path) -> Iterator[str]:
    mark = "-"
    for key, value in table.items():
        shown = _relative(value, folder) if key == "path" else value
        yield f"    {mark} {key}: {flow(shown)}"
        mark = " "


def _relative(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    if not Path(value).exists():
        return value
    relative = os.path.relpath(value, folder.resolve())
    return relative if relative.startswith("..") else f"./{relative}"


def _line(text: str, node: Node) -> str:
    return f"{text.ljust(_COLUMN)}{_comment(node)}".rstrip()


def _comment(node: Node) -> str:
    """Their key and its line; of a default whose it is."""
    note = "".join(c if c.isprintable() else "?" for c in node.note)
    theirs = note.removeprefix("written ")
    if "default" in note or theirs == note:
        return f"  # {note}" if note else ""
    return (
        f"  # {theirs}, line {node.line}"
        if node.source.name != "the command line"
        else (f"  # --{theirs.removeprefix('--')}")
    )
