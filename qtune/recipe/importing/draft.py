"""A recipe in the making: what another tool's file sets, key by key, and what is left of it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qtune.recipe.importing.facts import Reason
    from qtune.recipe.layers import Settings
    from qtune.recipe.node import Node

Kind = Literal["not in qtune", "left to the plan", "not needed", "empty"]
EMPTY = "sets nothing"
QUIET = "as here without being told"
_NEARLY = 0.8  # micro_batch_size is not meant by axolotl's batch_size, 0.77
_SECRET = re.compile(r"((hf|hub|wandb|auth|access)_token|(^|\.)token|api_key|password|secret)$")


@dataclass(frozen=True)
class Left:
    """A key of theirs that has no counterpart: its value, its line, and why."""

    key: str
    value: str
    line: int
    kind: Kind
    reason: str


class Draft:
    """Settings under our names; every key of theirs is taken, or left with a reason."""

    def __init__(self, tool: str, root: Node, *, devices: int = 1) -> None:
        self.tool = tool
        self.devices = devices
        self.settings: Settings = {}
        self.left: list[Left] = []
        self.remarks: list[str] = []
        self.root = root
        self._keys = dict(_flat(root))
        self._open = dict.fromkeys(self._keys)
        self._told: set[str] = set()
        self._asked: dict[str, str] = {}  # key of theirs -> of ours, empty where it has none

    @property
    def names(self) -> list[str]:
        """The paths of all values of theirs."""
        return list(self._keys)

    def __contains__(self, key: str) -> bool:
        return self.peek(key) is not None

    def peek(self, key: str) -> Node | None:
        """A value of theirs that is not empty, looked at only."""
        self._asked.setdefault(key, "")
        node = self._keys.get(key)
        return None if node is None or node.value is None else node

    def speaks_of(self, name: str) -> bool:
        """Whether a key or a table of theirs has that name, and a value that is not false."""
        return any(
            node.value not in (None, False) or key != name
            for key, node in self._keys.items()
            if key == name or key.startswith(f"{name}.")
        )

    def value(self, key: str, default: Any = None) -> Any:
        """A plain value of theirs, or what it is without one; counts as read."""
        node = self.take(key)
        return default if node is None else node.plain()

    def named(self, key: str) -> list[str]:
        """Names: of a list, or of a text with commas; empty for what holds none."""
        value = self.value(key)
        if isinstance(value, str):
            return [name for each in value.split(",") if (name := each.strip())]
        return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []

    def number(self, key: str, default: float) -> float:
        """A number of theirs above zero, or the default."""
        node = self.peek(key)
        value = None if node is None else node.value
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return value
        return default

    def part(self, key: str, default: Any = None) -> Any:
        """A plain value of theirs that becomes part of a setting with another key's name."""
        self._told.add(key)
        return self.value(key, default)

    def take(self, key: str) -> Node | None:
        """A value of theirs that is not empty; counts as read."""
        node = self.peek(key)
        if node is not None:
            self._open.pop(key, None)
        return node

    def take_below(self, prefix: str) -> dict[str, Node]:
        """Every value below a table of theirs, by the names inside it; count as read."""
        names = [key for key in self._keys if key.startswith(f"{prefix}.")]
        found = {name.removeprefix(f"{prefix}."): self.take(name) for name in names}
        return {name: node for name, node in found.items() if node is not None}

    def has(self, key: str) -> bool:
        """Whether a key of ours is set."""
        section, _, name = key.partition(".")
        return name in self.settings.get(section, {})

    def got(self, key: str, default: Any = None) -> Any:
        """What a key of ours is set to."""
        section, _, name = key.partition(".")
        node = self.settings.get(section, {}).get(name)
        return default if node is None else node.plain()

    def put(self, key: str, node: Node, value: Any, note: str) -> None:
        """Set a key of ours at the place of theirs; the first to set it wins."""
        section, _, name = key.partition(".")
        self.settings.setdefault(section, {}).setdefault(name, node.like(value, note))

    def drop(self, key: str) -> Node | None:
        """Unset a key of ours."""
        section, _, name = key.partition(".")
        return self.settings.get(section, {}).pop(name, None)

    def default(self, key: str, value: Any, why: str = "") -> None:
        """Set a key of ours to what their tool does without being told."""
        self.put(key, self.root, value, why or f"{self.tool}'s default")

    def move(
        self, theirs: str, ours: str, words: Mapping[Any, Any] | Callable[[Any], Any] | None = None
    ) -> bool:
        """Set a key of ours from one of theirs, its value through `words`; False if it is empty.

        A value that becomes None sets nothing.
        """
        node = self.take(theirs)
        self._asked[theirs] = ours
        if node is None:
            return False
        value = node.plain()
        if callable(words):
            value = words(value)
        elif words is not None and not isinstance(value, dict | list):
            value = words.get(value, value)
        if value is None:
            self.left.append(Left(theirs, shown(theirs, node), node.line, "empty", EMPTY))
        else:
            self.put(ours, node, value, f"written {theirs}")
        return True

    def remark(self, text: str) -> None:
        """Something that a person should look at."""
        if text not in self.remarks:
            self.remarks.append(text)

    def leave(self, key: str, kind: Kind, reason: str) -> None:
        """A key of theirs that becomes nothing; no effect when it is not there."""
        node = self.take(key)
        if node is not None:
            self.left.append(Left(key, shown(key, node), node.line, kind, reason))

    def _tell_the_quiet(self) -> None:
        """Keys that were read, and changed nothing because qtune does as they say."""
        notes = [node.note for keys in self.settings.values() for node in keys.values()]
        known = {one.key for one in self.left} | self._told
        for key, node in self._keys.items():
            if key in known or node.value is None or mentioned(key, " ".join(notes)):
                continue
            self.left.append(Left(key, shown(key, node), node.line, "not needed", QUIET))

    def leave_rest(self, reasons: Mapping[str, Reason], unknown: str) -> None:
        """All that was not read: by its own reason or that of the table it stands in."""
        for key in list(self._open):
            node = self._keys[key]
            if node.value is None:
                self.left.append(Left(key, "", node.line, "empty", EMPTY))
                continue
            known = _reason(key, reasons)
            if known is None:
                self._misspelt(key, node)
            kind, reason = known or ("not in qtune", unknown)
            if node.value is False and kind == "not in qtune":
                kind, reason = "not needed", "off, as here"
            self.left.append(Left(key, shown(key, node), node.line, kind, reason))
        self._open.clear()
        self._tell_the_quiet()
        self.left.sort(key=lambda one: one.line)

    def _misspelt(self, key: str, node: Node) -> None:
        """A remark on a key that is nearly one that was looked for and is not there."""
        missing = [name for name in self._asked if name not in self._keys]
        [meant] = difflib.get_close_matches(key, missing, n=1, cutoff=_NEARLY) or [""]
        if not meant:
            return
        default = ""
        if ours := self._asked[meant]:
            section, _, name = ours.partition(".")
            set_to = self.settings.get(section, {}).get(name)
            by_key = set_to is not None and set_to.note.startswith("written ")
            whose = "qtune" if set_to is None else self.tool
            default = "" if by_key else f" {ours} is {whose}'s default"
        self.remark(
            f"{key} (line {node.line}) is no key of {self.tool} that is known here: did you mean "
            f"{meant}?{default}"
        )


def mentioned(key: str, text: str) -> bool:
    """Whether a text names a key, in full or by its last part."""
    return any(re.search(rf"\b{re.escape(name)}\b", text) for name in (key, key.split(".")[-1]))


def shown(key: str, node: Node) -> str:
    """A value for people; a secret's is not repeated."""
    return "hidden" if _SECRET.search(key) else short(node.plain())


def short(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def _reason(key: str, reasons: Mapping[str, Reason]) -> Reason | None:
    """Of a key, of its last part, or of a table around it."""
    parts = key.split(".")
    for name in (key, *(".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)), parts[-1]):
        if name in reasons:
            return reasons[name]
    return None


def _flat(node: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Values by their path, tables opened; an empty table stands for itself."""
    if not isinstance(node.value, dict):
        return
    for name, child in node.value.items():
        path = f"{prefix}{name}"
        if isinstance(child.value, dict) and child.value:
            yield from _flat(child, f"{path}.")
        else:
            yield path, child
