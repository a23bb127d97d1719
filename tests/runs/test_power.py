"""What the disk holds when the power fails: only what was flushed can be relied upon.

The operations of a whole life are followed; at each change of a name, all that the new name stands
for must have been flushed, and what is about to go must have its successor on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qtune import durable
from tests.runs.story import live


class Disk:
    """What is not on the disk yet: contents of files, and names in folders."""

    def __init__(self) -> None:
        self.contents: set[Path] = set()
        self.names: set[Path] = set()
        self.published: list[str] = []
        self.retired: list[str] = []

    def watch(self, operation: str, path: Path) -> None:
        """Follow one operation."""
        if operation == "write":
            self.contents.add(path)
        elif operation == "fsync":
            self.contents.discard(path)
            self.names.discard(path)
        elif operation == "rename":
            self._rename(path)
        if operation in {"mkdir", "open", "rename"}:  # a removal that is lost is done again
            self.names.add(path.parent)

    def _rename(self, path: Path) -> None:
        unflushed = [item for item in self.contents | self.names if _is_in(item, path)]
        if durable.is_leftover(path):
            self.published.append(path.name)
            assert unflushed == [], f"{path.name} is published before {unflushed} is on the disk"
        else:
            self.retired.append(path.name)
            assert path.parent not in self.names, f"{path.name} goes before the new one is there"


def _is_in(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def test_every_name_comes_after_what_it_stands_for(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    disk = Disk()
    with durable.watching(disk.watch):
        live(tmp_path / "run")
    assert disk.retired == ["step-000020", "step-000030"]
    assert len(disk.published) >= 20
    assert disk.names == set()
    assert {path.name for path in disk.contents} == {"metrics.jsonl"}  # lines that may be lost
    record_property("G1 names in the order of the disk", len(disk.published) + len(disk.retired))


@pytest.mark.parametrize("forgotten", ["adapter_model.safetensors", "MANIFEST.json", "checkpoints"])
def test_a_flush_that_is_forgotten_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    disk = Disk()

    def watch(operation: str, path: Path) -> None:
        if operation != "fsync" or forgotten not in path.name:
            disk.watch(operation, path)

    monkeypatch.setattr(os, "fsync", lambda _: None)
    said = pytest.raises(AssertionError, match=r"is published before|goes before")
    with said, durable.watching(watch):
        live(tmp_path / "run")
    assert len(disk.retired) < 2
