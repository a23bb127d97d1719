"""A disk that is full from any operation on: what was saved stays, nothing else does."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from qtune import durable
from qtune.errors import ExitCode, ResourceError
from qtune.runs import checkpoint
from qtune.sizes import human, parse_size
from tests.runs.small import save_step, tensor_file
from tests.runs.story import check, go_on, leftovers, live, operations

TAKES_SPACE = {"mkdir", "open", "write", "fsync"}
REMOVALS = {"unlink", "rmdir"}
Record = Callable[[str, object], None]


def _full_from(number: int) -> Callable[[str, Path], None]:
    """The operation fails, and all later ones that need room: names can be changed and removed."""
    passed = count()

    def fail(operation: str, _: Path) -> None:
        now = next(passed)
        if now == number or (now > number and operation in TAKES_SPACE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fail


def _error_of(path: Path, number: int) -> ResourceError | None:
    """What a run says on a disk that is full from an operation on."""
    try:
        with durable.watching(_full_from(number)):
            live(path)
    except ResourceError as error:
        return error
    return None


def test_a_disk_full_at_any_operation_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    monkeypatch.setattr(durable, "BLOCK", 700)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    seen, returned = operations(tmp_path / "whole")
    told = 0
    for number, operation in enumerate(seen):
        path = tmp_path / "run"
        saved = [step for step, operations in returned.items() if operations <= number]
        error = _error_of(path, number)
        if error is None:
            assert operation in REMOVALS  # of what has lost its name already
        else:
            told += 1
            assert error.code == ExitCode.RESOURCES == 5
            assert str(path) in str(error)
            assert re.search(r"No space left on device; .*\d [kMGT]?B are free", str(error))
        if path.exists():
            check(path, saved)
        assert operation in REMOVALS or leftovers(tmp_path) == []
        go_on(path)
        check(path, saved)
        assert leftovers(path) == []
        shutil.rmtree(path)
    removals = sum(operation in REMOVALS for operation in seen)
    assert told >= len(seen) - removals >= 80
    record_property("G5 ENOSPC points", len(seen))
    record_property("G5 survived", len(seen))


def test_the_message_says_what_a_checkpoint_needs(tmp_path: Path) -> None:
    save_step(tmp_path, 10)
    whole = checkpoint.size(tmp_path / "step-000010")
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(ResourceError) as refused, durable.watching(_full_from(3)):
        save_step(tmp_path, 20)
    message = str(refused.value)
    found = re.search(r"it needs (.*) or more, (.*) are free", message)
    assert found is not None
    assert found[1] == human(whole)
    assert parse_size(found[2]) == pytest.approx(free, rel=0.2)
    assert f"{tmp_path}/step-000020" in message
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_limit_of_the_system_is_met_like_a_full_disk(
    tmp_path: Path, record_property: Record
) -> None:
    """No hook: the system itself refuses the bytes, in the middle of a file."""

    def fill(draft: Path) -> None:
        durable.write_bytes(draft / "adapter_model.safetensors", tensor_file(bytes(100_000)))

    save_step(tmp_path, 10)
    child = os.fork()
    if not child:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            checkpoint.save(tmp_path / "step-000020", fill, facts={})
        except ResourceError as error:
            status = int(error.code) if "File too large" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ExitCode.RESOURCES
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]
    checkpoint.save(tmp_path / "step-000020", fill, facts={})
    newest = checkpoint.newest_valid(tmp_path).checkpoint
    assert newest is not None
    assert newest.step == 20
    record_property("G5 limits of the system", 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kilobytes", [150, 300, 400, 600])
def test_a_disk_that_is_really_full(
    small_disk: Path, kilobytes: int, record_property: Record
) -> None:
    def fill(draft: Path) -> None:
        for name in ("adapter_model.safetensors", "training.safetensors"):
            durable.write_bytes(draft / name, tensor_file(bytes(kilobytes * 512)))

    message, last = "", 0
    for step in range(10, 100, 10):
        try:
            checkpoint.save(small_disk / checkpoint.name_of(step), fill, facts={})
            last = step
        except ResourceError as error:
            message = str(error)
            break
    found = re.search(r"it needs (.*) or more, (.*) are free", message)
    assert found is not None
    needed, free = parse_size(found[1]), parse_size(found[2])
    assert f"step-{last + 10:06d}: cannot write the checkpoint: No space left on device" in message
    assert 2**20 > needed > kilobytes * 512 > 0
    assert needed > free
    assert leftovers(small_disk) == []
    newest = checkpoint.newest_valid(small_disk)
    assert newest.skipped == ()
    assert newest.checkpoint is not None
    assert newest.checkpoint.step == last
    record_property("G5 full disks", 1)
