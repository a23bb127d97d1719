"""A fault put into a sound folder, what must be said about it, and ways to put it there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Change = Callable[[Path], Any]
TRAIN = ("train", "recipe.yaml", "-o", "run", "--quiet")
WEIGHTS = "base/model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@dataclass(frozen=True)
class Case:
    """`says`: every one of these must be told, in at most so many `lines`; `command`: what is
    called, with `set` at its end."""

    code: int
    says: tuple[str, ...]
    change: Change = lambda _: None
    set: tuple[str, ...] = ()
    command: tuple[str, ...] = TRAIN
    lines: int = 3

    @property
    def arguments(self) -> list[str]:
        """The command line."""
        return [*self.command, *(part for setting in self.set for part in ("--set", setting))]


def file(name: str, content: str | bytes) -> Change:
    """A file with that content."""
    data = content.encode() if isinstance(content, str) else content

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return change


def lines(name: str, *rows: Any) -> Change:
    """A file of JSON Lines."""
    return file(name, "".join(json.dumps(row) + "\n" for row in rows))


def cut(name: str, size: int) -> Change:
    """The file, cut to so many bytes."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def gone(name: str) -> Change:
    """The file, removed."""
    return lambda folder: (folder / name).unlink()


def section(part: str, /, **keys: Any) -> Change:
    """The recipe, with keys of a section changed."""

    def change(folder: Path) -> None:
        settings = yaml.safe_load((folder / "recipe.yaml").read_text())
        settings[part] = settings.get(part, {}) | keys
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))

    return change


def appended(text: str) -> Change:
    """The recipe with more text below it."""

    def change(folder: Path) -> None:
        with (folder / "recipe.yaml").open("a") as recipe:
            recipe.write(text)

    return change


def both(*changes: Change) -> Change:
    """Several changes, one after the other."""
    return lambda folder: [change(folder) for change in changes]


def json_file(name: str, /, **keys: Any) -> Change:
    """A JSON object on the disk, with keys changed."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def source(name: str, content: str | bytes) -> Change:
    """Training rows from a file of that name and content."""
    return both(file(name, content), section("data", train=[{"path": f"./{name}"}]))
