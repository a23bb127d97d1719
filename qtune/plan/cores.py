"""Cores that this process may really use: a container may see 64 and be allowed two of them."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Cores this process may run on, rounded up: by its affinity and by the CPU time that its
    control groups, versions 2 and 1, and every one around them allow."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    shares = [quota / period for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, math.ceil(min([allowed, *shares])))


def _quotas(root: Path) -> list[tuple[float, float]]:
    """(microseconds of CPU time, in each so many microseconds) of each limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, own = ([*line.split(":", 2), "", ""])[:3]
        group = Path(own.lstrip("/"))
        for each in (group, *group.parents):
            if not controllers:
                words = _words(root / "sys/fs/cgroup" / each / "cpu.max")
            elif "cpu" in controllers.split(","):
                folder = root / "sys/fs/cgroup/cpu" / each
                words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
            else:
                continue
            if len(words) == 2 and words[0] != "max":
                found.append((float(words[0]), float(words[1])))
    return found


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
