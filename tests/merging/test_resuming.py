"""A merge that is killed at any operation on the disk goes on to the same files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune import durable
from qtune.errors import OutputError
from qtune.merging import shard_file, write
from qtune.merging.folding import Folding
from qtune.merging.progress import NAME
from qtune.runs import lock
from tests.merging.workshop import merged, prepared, tensors, usual_edits
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 70_000  # bytes of a file: several files


class Killed(BaseException):
    """A process that ended."""


def go(base: Path, target: Path, *, identity: str = "", fail: Any = None) -> None:
    from dataclasses import replace

    work = replace(prepared(base, usual_edits()), identity={"adapter": identity})
    verify = fail or (lambda _: None)
    write(work, target, max_shard_bytes=SMALL, verify=verify, card=lambda _: "card")


def killed_at(count: int, base: Path, target: Path) -> bool:
    """Merge in a process that ends at its `count`-th operation; whether it got that far."""
    number = os.fork()
    if not number:
        torch.set_num_threads(1)
        left = [count]

        def tick(_: str, __: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)

        try:
            with durable.watching(tick):
                go(base, target)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 9


def test_killed_anywhere_it_finishes_right(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    go(base, tmp_path / "straight")
    wanted = {p.name: p.read_bytes() for p in (tmp_path / "straight").iterdir()}
    assert len([name for name in wanted if name.endswith("safetensors")]) > 3
    steps = -7
    while True:
        steps += 9  # every ninth of the operations, which differ in what comes before
        place = tmp_path / f"killed-{steps}"
        place.mkdir()
        target = place / "merged"
        died = killed_at(steps, base, target)
        published = target.exists()
        if published:  # whole, whatever came after
            assert {p.name for p in target.iterdir()} == set(wanted)
        else:
            go(base, target)
        assert {p.name: p.read_bytes() for p in target.iterdir()} == wanted
        assert [path.name for path in place.iterdir()] == ["merged"]
        if not died:
            break
    assert steps > 60


def broken_off(base: Path, target: Path, *, identity: str = "") -> Path:
    """A merge that was stopped when its files were finished; its staging folder."""

    def stop(_: Path) -> None:
        raise Killed

    with pytest.raises(Killed):
        go(base, target, identity=identity, fail=stop)
    (place,) = target.parent.glob(".merged.*.merge")
    assert not target.exists()
    return place


def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are written from now on."""
    names: list[str] = []
    plain = shard_file.write

    def watched(path: Path, parts: Any) -> str:
        names.append(path.name)
        return plain(path, parts)

    monkeypatch.setattr(shard_file, "write", watched)
    return names


def test_finished_files_are_kept_and_damaged_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = save_tiny(tmp_path / "base"), tmp_path / "merged"
    place = broken_off(base, target)
    second = sorted(place.glob("*.safetensors"))[1]
    content = bytearray(second.read_bytes())
    content[-3] ^= 1
    second.write_bytes(content)
    (place / "model-00009-of-00009.safetensors.part").write_bytes(b"half")
    names = written(monkeypatch)
    go(base, target)
    assert names == [second.name]
    merged(base, tmp_path / "straight", usual_edits(), max_shard_bytes=SMALL)
    one, other = tensors(target), tensors(tmp_path / "straight")
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert not list(target.glob("*.part"))


def test_another_merge_begins_anew_and_clears_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = save_tiny(tmp_path / "base"), tmp_path / "merged"
    place = broken_off(base, target, identity="one")
    files = len(list(place.glob("*.safetensors")))
    names = written(monkeypatch)
    go(base, target, identity="two")
    assert len(names) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "merged"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    base, target = save_tiny(tmp_path / "base"), tmp_path / "merged"
    place = broken_off(base, target)
    with lock.hold(place), pytest.raises(OutputError, match="in use by process"):
        go(base, target)
    assert (place / NAME).is_file()
    go(base, target)


def test_the_account_of_kept_files_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, target = save_tiny(tmp_path / "base"), tmp_path / "merged"
    straight = merged(
        base, tmp_path / "a", usual_edits(), max_shard_bytes=SMALL, dtype=torch.bfloat16
    )

    def stop(_: Path) -> None:
        raise Killed

    with pytest.raises(Killed):
        merged(
            base, target, usual_edits(), max_shard_bytes=SMALL, dtype=torch.bfloat16, verify=stop
        )
    monkeypatch.setattr(Folding, "blocks", None)
    again = merged(base, target, usual_edits(), max_shard_bytes=SMALL, dtype=torch.bfloat16)
    assert again.rounding == pytest.approx(straight.rounding)
    assert again.rounding > 0
