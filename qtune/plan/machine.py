"""The machine a plan is made for: a plain value, given or probed without torch."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from qtune.plan.cores import cores
from qtune.sizes import human

# A card sold as 48 GB holds 48 GiB, of which error correction and the driver leave 44.4 to 47.5;
# cards with HBM correct errors elsewhere and leave nearly all.
_USABLE_SHARE = 0.925
_USABLE_SHARE_HBM = 0.985
_HBM_SIZES = frozenset({40, 80, 94, 141, 180, 192})
_GB, _GIB = 10**9, 2**30
# cgroup v1 writes "no limit" as the largest page-aligned number
_NO_LIMIT = 2**60


@dataclass(frozen=True)
class Machine:
    """Memory in bytes that a run may use, and where it computes."""

    device: Literal["cpu", "cuda"]
    name: str
    device_memory: int
    host_memory: int
    """0 where it is not known."""
    cores: int
    note: str = ""
    """How device_memory was found."""
    seats: int = 0
    """Processes of a run on each such machine; 0 where all of them are on one."""

    @classmethod
    def gpu(cls, size: int) -> Machine:
        """A card of that size on an unknown host; a whole number of GB is what is printed on it."""
        gigabytes, rest = divmod(size, _GB)
        if rest:
            return cls("cuda", f"GPU with {human(size)}", size, 0, 0, "as given")
        share = _USABLE_SHARE_HBM if gigabytes in _HBM_SIZES else _USABLE_SHARE
        usable = int(gigabytes * share * _GIB)
        note = f"the smallest {gigabytes} GB cards leave {usable / _GIB:.1f} of {gigabytes} GiB"
        return cls("cuda", f"{gigabytes} GB GPU", usable, 0, 0, note)

    @classmethod
    def probe(cls, gpu: str | None = None) -> Machine:
        """The first visible NVIDIA GPU, or that of a name as `gpus` gives it, else this CPU."""
        return cls.with_gpu(_first_gpu() if gpu is None else _parse_gpus(_gpu_table(), gpu))

    @classmethod
    def with_gpu(cls, found: tuple[str, int, int] | None) -> Machine:
        """This machine with a GPU's name, total and free bytes, or its CPU."""
        host, note = host_memory()
        if found is None:
            return cls("cpu", f"CPU, {cores()} cores", host, host, cores(), note)
        name, total, free = found
        busy = total - free
        note = f"{human(busy)} of it are in use" if busy > _GIB else "all of it is free"
        return cls("cuda", name, free, host, cores(), note)

    @classmethod
    def probe_for(cls, processes: int) -> Machine:
        """What each of so many processes of this machine has: the one of their GPUs with the least
        memory free, or a part of this CPU's."""
        if processes == 1:
            return cls.probe().share(1)
        table = _gpu_table()  # asked once: it takes a while with many
        found = [_parse_gpus(table, name) for name in _visible(table)[:processes]]
        seen = [cls.with_gpu(gpu) for gpu in found or [None]]
        return min(seen, key=lambda machine: machine.device_memory).share(processes)

    def share(self, processes: int) -> Machine:
        """What one of so many processes of this machine has, each on a device of its own; a CPU's
        memory and cores are for all of them."""
        if processes == 1:
            return replace(self, seats=1)
        host, cores = self.host_memory // processes, max(1, self.cores // processes)
        if self.device == "cuda":
            return replace(self, host_memory=host, cores=cores, seats=processes)
        note = f"one of {processes} parts of the {self.note}"
        memory = self.device_memory // processes
        return Machine("cpu", f"CPU, {cores} cores", memory, host, cores, note, processes)

    def alone(self) -> Machine:
        """What one process would have if the others of its machine were not: of a CPU all of it."""
        if self.device == "cuda" or self.seats <= 1:
            return replace(self, seats=1)
        memory, cores = self.device_memory * self.seats, self.cores * self.seats
        return Machine("cpu", f"CPU, {cores} cores", memory, memory, cores, self.note, 1)


def host_memory(root: Path = Path("/")) -> tuple[int, str]:
    """Bytes of host memory that are free for us, and what says so: the machine or a cgroup."""
    free, note = _free_memory(root), "free memory of this machine"
    for limit, used in _cgroup_limits(root):
        if limit - used < free:
            free, note = max(0, limit - used), f"left of a limit (cgroup) of {human(limit)}"
    return free, note


def _free_memory(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_limits(root: Path) -> list[tuple[int, int]]:
    """(limit, used) of our control groups and of every one around them, versions 2 and 1."""
    found = []
    for folder, limit_file, used_file, cache_key in _cgroup_folders(root):
        limit, used = _number(folder / limit_file), _number(folder / used_file)
        if limit is not None and limit < _NO_LIMIT:
            found.append((limit, max(0, (used or 0) - _file_cache(folder, cache_key))))
    return found


def _cgroup_folders(root: Path) -> list[tuple[Path, str, str, str]]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[tuple[Path, str, str, str]] = []
    for line in lines:
        _, controllers, own = ([*line.split(":", 2), "", ""])[:3]
        if not controllers:
            top, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = Path(own.lstrip("/"))
        folders += [(top / each, *files) for each in (group, *group.parents)]
    return folders


def _file_cache(folder: Path, key: str) -> int:
    """File cache that the kernel gives back on demand counts as free."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = (line.split()[1] for line in lines if line.startswith(f"{key} "))
    return int(next(values, "0"))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def gpus() -> list[str]:
    """The visible NVIDIA GPUs, each as CUDA_VISIBLE_DEVICES names it alone."""
    return _visible(_gpu_table())


def _visible(table: str) -> list[str]:
    """As `gpus`, of all that there are."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    if not rows or visible is None:
        return [row[1] for row in rows]
    named = [name.strip() for name in visible.split(",")]
    # CUDA sees none from the first on that is not there
    return named[: named.index("-1")] if "-1" in named else [name for name in named if name]


def _first_gpu() -> tuple[str, int, int] | None:
    """Name, total and free bytes of the GPU that CUDA would call device 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return None
    wanted = visible.split(",")[0].strip() if visible else "0"
    return _parse_gpus(_gpu_table(), wanted)


def _gpu_table() -> str:
    """A line for each NVIDIA GPU: index, uuid, name, total and free MiB."""
    try:
        return subprocess.run(
            [
                "nvidia-smi",
                "--query-gpu=index,uuid,name,memory.total,memory.free",
                "--format=csv,noheader,nounits",
            ],
            capture_output=True,
            text=True,
            timeout=30,  # without the persistence daemon several cards take long to wake
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _parse_gpus(table: str, wanted: str) -> tuple[str, int, int] | None:
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and (cells[0] == wanted or cells[1].startswith(wanted)):
            # a card that shares the host's memory answers [N/A]
            if not (cells[3].isdecimal() and cells[4].isdecimal()):
                return None
            return cells[2], int(cells[3]) * 2**20, int(cells[4]) * 2**20
    return None
