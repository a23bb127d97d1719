"""Layers on their way to a CUDA device, with streams that only note what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from qtune.models import layer_sources
from qtune.models.layer_files import LayerFiles, Piece
from qtune.models.layer_slots import Slots
from qtune.models.layer_sources import DiskToDevice, Pinned

SIZES = (300, 520, 100, 777, 512)
GAP = 24


class Stream:
    """Notes, in the order of all streams, what it records and waits for."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes
        self.events = 0

    def record_event(self) -> Any:
        self.events += 1
        event = Event(f"{self.name}{self.events}")
        self.notes.append(f"{self.name} records {event.name}")
        return event

    def wait_event(self, event: Any) -> None:
        self.notes.append(f"{self.name} waits for {event.name}")


class Event:
    """Something that a stream reaches."""

    def __init__(self, name: str) -> None:
        self.name = name

    def synchronize(self) -> None:
        """Nothing is ever late here."""


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    side, current = Stream("side", found), Stream("current", found)
    empty = torch.empty

    @contextmanager
    def stream(which: Stream) -> Iterator[None]:
        assert which is side
        yield

    def unpinned(*sizes: Any, pin_memory: bool = False, **settings: Any) -> torch.Tensor:
        del pin_memory
        return empty(*sizes, **settings)

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: side)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: current)
    monkeypatch.setattr(torch, "empty", unpinned)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(layer_sources, "CHUNK", 128)
    return found


@pytest.fixture
def contents(tmp_path: Path) -> tuple[LayerFiles, list[torch.Tensor]]:
    """Layers of two pieces each, which lie in the file the other way round than in a slot."""
    draw = torch.Generator().manual_seed(0)
    layers, wanted, stored = [], [], b""
    path = tmp_path / "layers"
    for size in SIZES:
        content = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=draw)
        half = size // 3
        first, second = content[:half], content[half:]
        pieces = [Piece(path, len(stored) + len(second) + GAP, half, 0)]
        pieces.append(Piece(path, len(stored), len(second), half))
        stored += bytes(second.tolist()) + bytes(GAP) + bytes(first.tolist())
        layers.append(pieces)
        wanted.append(content)
    path.write_bytes(stored)
    return LayerFiles(layers), wanted


def _source(kind: str, files: LayerFiles) -> Pinned | DiskToDevice:
    device = torch.device("cpu")
    if kind == "disk":
        return DiskToDevice(files, device, max(SIZES))
    counted: list[int] = []
    source = Pinned(files, device, lambda: counted.append(1))
    assert len(counted) == len(SIZES)
    return source


@pytest.mark.parametrize("kind", ["pinned", "disk"])
def test_every_layer_comes_whole_in_any_order(
    kind: str, notes: list[str], contents: tuple[LayerFiles, list[torch.Tensor]]
) -> None:
    files, wanted = contents
    buffers = [torch.zeros(max(SIZES), dtype=torch.uint8) for _ in range(2)]
    slots = Slots(_source(kind, files), buffers, layers=len(SIZES))
    for layer in (0, 1, 2, 3, 4, 3, 2, 1, 0, 4, 0, 2):
        slots.require(layer)
        assert torch.equal(buffers[layer % 2][: SIZES[layer]], wanted[layer])
    assert notes


@pytest.mark.parametrize("kind", ["pinned", "disk"])
def test_a_copy_begins_after_what_was_asked_before_and_ends_before_what_is_asked_after(
    kind: str, notes: list[str], contents: tuple[LayerFiles, list[torch.Tensor]]
) -> None:
    source = _source(kind, contents[0])
    copied = type(source)._copy

    def noted(self: Any, layer: int, slot: torch.Tensor) -> None:
        notes.append("copy")
        copied(self, layer, slot)

    source._copy = noted.__get__(source)  # type: ignore[method-assign]
    source.start(1, torch.zeros(max(SIZES), dtype=torch.uint8))()
    told = [note for note in notes if "copy" in note or "waits" in note or "current" in note]
    last = notes[-2].removeprefix("side records ")
    assert told[:3] == ["current records current1", "side waits for current1", "copy"]
    assert told[-1] == f"current waits for {last}"
