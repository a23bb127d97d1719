"""A command line, or a shell script with one, as a table of its flags."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.recipe.node import Node
from qtune.recipe.scalars import scalar

if TYPE_CHECKING:
    from qtune.recipe.node import Source

_CONFIGURED = re.compile(
    r"(axolotl|accelerate|llamafactory-cli|tune|trl|litgpt|mlx_lm\S*|unsloth)\b.*?(\S+\.ya?ml)"
)
_HINT = "write it as qlora.py's: python qlora.py --model_name_or_path ..."


def parse_commands(text: str, source: Source) -> Node:
    """The flags of the one call of qlora.py in a text; `UsageError` for none or several."""
    calls = [each for each in _commands(text) if any(_is_script(word) for word in each[1])]
    if not calls:
        raise _no_call(text, source)
    if len(calls) > 1:
        lines = ", ".join(str(line) for line, _ in calls)
        message = f"calls qlora.py {len(calls)} times, in lines {lines}"
        raise UsageError(message, place=source.name, hint="give one command line in quotes")
    [(line, words)] = calls
    script = next(number for number, word in enumerate(words) if _is_script(word))
    return Node(_flags(words[script + 1 :], source, line), source, line)


def _is_script(word: str) -> bool:
    return word == "qlora.py" or word.endswith("/qlora.py")


def _commands(text: str) -> list[tuple[int, list[str]]]:
    """Every command with its first line; lines that end in a backslash go on."""
    found: list[tuple[int, list[str]]] = []
    start, parts = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not parts:
            start = number
        stripped = line.rstrip()
        if stripped.endswith("\\"):
            parts += stripped[:-1] + " "
            continue
        try:
            words = shlex.split(parts + stripped, comments=True)
        except ValueError:
            words = (parts + stripped).split()
        if words:
            found.append((start, words))
        parts = ""
    if parts:
        found.append((start, parts.split()))
    return found


def _flags(words: list[str], source: Source, line: int) -> dict[str, Node]:
    """--name value, --name=value and --name alone, which is true; the last of a name counts."""
    table: dict[str, Node] = {}
    name = ""
    for word in words:
        if word in ("&&", ";", "|", ">", "2>&1", "&"):
            break
        if word.startswith("--"):
            name, given, value = word[2:].partition("=")
            name = name.replace("-", "_")
            table[name] = Node(_value(value) if given else True, source, line)
            name = "" if given else name
        elif name:
            table[name] = Node(_value(word), source, line)
            name = ""
    return table


def _value(word: str) -> str | int | float | bool | None:
    if word in ("True", "False"):
        return word == "True"
    return None if word == "None" else scalar(word)


def _no_call(text: str, source: Source) -> UsageError:
    """What the text calls instead."""
    for line in text.splitlines():
        if not line.lstrip().startswith("#") and (match := _CONFIGURED.search(line)):
            message = f"calls {match[1]} with a file of its own"
            return UsageError(message, place=source.name, hint=f"qtune import {match[2]}")
    return UsageError("no command line of qlora.py", place=source.name, hint=_HINT)
