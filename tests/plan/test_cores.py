"""Cores by affinity and by the limits of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qtune.plan.cores import cores


def _write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def test_without_limits_all_that_the_affinity_allows(tmp_path: Path) -> None:
    assert cores(tmp_path) == 64


@pytest.mark.parametrize(
    ("text", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("max 100000", 64)]
)
def test_version_2(tmp_path: Path, text: str, expected: int) -> None:
    _write(tmp_path, "proc/self/cgroup", "0::/pod/job\n")
    _write(tmp_path, "sys/fs/cgroup/pod/job/cpu.max", "max 100000\n")
    _write(tmp_path, "sys/fs/cgroup/pod/cpu.max", text + "\n")
    assert cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("-1", 64), ("1000", 1)])
def test_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    _write(tmp_path, "proc/self/cgroup", "4:memory:/m\n3:cpu,cpuacct:/pod\n")
    _write(tmp_path, "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us", quota)
    _write(tmp_path, "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us", "100000")
    assert cores(tmp_path) == expected


def test_a_limit_above_the_affinity_allows_no_more(tmp_path: Path) -> None:
    _write(tmp_path, "proc/self/cgroup", "0::/\n")
    _write(tmp_path, "sys/fs/cgroup/cpu.max", "9900000 100000\n")
    assert cores(tmp_path) == 64
