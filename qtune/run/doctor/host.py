"""The machine around the device: memory, cores, limits, disks and caches. No torch."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from qtune.plan import human
from qtune.plan.cores import cores
from qtune.plan.machine import host_memory
from qtune.run.doctor.finding import Finding

_GB = 10**9
LEAST_MEMORY = 4 * _GB
LEAST_DISK = 5 * _GB
LITTLE_DISK = 20 * _GB
WRITTEN = 64 * 2**20
SLOW = 50 * 10**6  # bytes a second
LEAST_SHARED = 64 * 2**20
FEW_FILES = 1024
MOST_FILES = 200_000
"""Of a cache, whose size is then told as at least so much."""


def check_memory() -> Finding:
    """Host memory that is free for us, control groups included."""
    free, note = host_memory()
    said = f"{human(free)} free, {note}"
    if free < LEAST_MEMORY:
        return Finding("memory", "warning", said, "close other programs, or raise the limit")
    return Finding("memory", "ok", said)


def check_cores() -> Finding:
    """Cores that may be used, and what OMP_NUM_THREADS makes of them."""
    allowed, asked = cores(), os.environ.get("OMP_NUM_THREADS", "")
    count = f"{allowed} {'core' if allowed == 1 else 'cores'} to use"
    seen = os.cpu_count() or allowed
    said = f"{count} of {seen}" if seen > allowed else count
    if asked.isdecimal() and int(asked) > allowed:
        return Finding(
            "CPU threads",
            "warning",
            f"{said}, and OMP_NUM_THREADS={asked}",
            f"unset it, or set it to {allowed}: more threads than cores wait for one another",
        )
    if asked.isdecimal() and int(asked) < allowed:
        said += f", OMP_NUM_THREADS={asked} uses fewer"
    return Finding("CPU threads", "ok", said)


def check_limits() -> Finding:
    """ulimit: open files, and the address space."""
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    unlimited = resource.RLIM_INFINITY
    said = f"{'unlimited' if files == unlimited else f'{files:,}'} open files"
    if space != unlimited:
        said += f", {human(space)} of address space"
        advice = "ulimit -v unlimited: CUDA maps far more than it uses"
        return Finding("limits", "warning", said, advice)
    if files != unlimited and files < FEW_FILES:
        return Finding(
            "limits", "warning", said, f"ulimit -n {FEW_FILES * 4}: shards are many files"
        )
    return Finding("limits", "ok", said)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108 - it is asked for
    """Shared memory, through which loader processes hand over batches."""
    if not folder.is_dir():
        return Finding("shared memory", "ok", "this system has no /dev/shm")
    free = shutil.disk_usage(folder).free
    if free < LEAST_SHARED:
        advice = "start the container with --shm-size=1g"
        return Finding("shared memory", "warning", f"{human(free)} free", advice)
    return Finding("shared memory", "ok", f"{human(free)} free")


def check_disk(name: str, folder: Path) -> Finding:
    """Room and speed of the disk that a folder will be on, by writing and removing 64 MiB."""
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    said = f"{human(free)} free"
    if not os.access(there, os.W_OK):
        return Finding(name, "fault", f"{there} cannot be written", "name another folder")
    if free < LEAST_DISK:
        return Finding(name, "fault", said, "make room: a run needs the base and its checkpoints")
    speed = write_speed(there)
    said += f", writes {human(int(speed))}/s"
    if free < LITTLE_DISK:
        return Finding(name, "warning", said, "room for small models only: qtune plan tells")
    if speed < SLOW:
        return Finding(name, "warning", said, "checkpoints will be slow: take a local disk")
    return Finding(name, "ok", said)


def write_speed(folder: Path) -> float:
    """Bytes a second, flushed to the disk; nothing stays."""
    path = folder / f".qtune-doctor-{secrets.token_hex(8)}"
    block = os.urandom(2**20)
    start = time.perf_counter()
    try:
        with path.open("wb") as file:
            for _ in range(WRITTEN // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - start)
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def check_cache(name: str, folder: Path, *, seconds: float = 2.0) -> Finding:
    """How much a cache holds, counted for a while at most."""
    if not folder.is_dir():
        return Finding(name, "ok", f"{_home(folder)}: nothing yet")
    size, files, end = 0, 0, time.perf_counter() + seconds
    for top, _, names in os.walk(folder):
        for each in names:
            with suppress(OSError):
                size += Path(top, each).lstat().st_size
            files += 1
        if files > MOST_FILES or time.perf_counter() > end:
            return Finding(name, "ok", f"{_home(folder)}: over {human(size)}")
    if not files:
        return Finding(name, "ok", f"{_home(folder)}: nothing yet")
    count = "1 file" if files == 1 else f"{files:,} files"
    return Finding(name, "ok", f"{_home(folder)}: {human(size)} in {count}")


def _home(path: Path) -> str:
    """A path with ~ for the home folder."""
    with suppress(ValueError, RuntimeError):
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def caches() -> dict[str, Path]:
    """Where models, data sets and encoded rows are kept."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    face = Path(os.environ.get("HF_HOME") or user / "huggingface").expanduser()
    return {
        "models": Path(os.environ.get("HF_HUB_CACHE") or face / "hub").expanduser(),
        "data sets": Path(os.environ.get("HF_DATASETS_CACHE") or face / "datasets").expanduser(),
        "encoded rows": user / "qtune" / "rows",
    }
