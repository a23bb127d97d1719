from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from qtune.plan import Machine, gpus, machine, parse_size

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
TABLE = """0, GPU-aaaa, NVIDIA RTX A6000, 49140, 48669
1, GPU-bbbb, NVIDIA H100, 81559, 40000
"""


@pytest.mark.parametrize(
    ("text", "gibibytes"),
    [("48GB", 44.4), ("24GB", 22.2), ("80GB", 78.8), ("16GB", 14.8)],
)
def test_a_card_sold_by_the_gigabyte_has_less_to_use(text: str, gibibytes: float) -> None:
    found = Machine.gpu(parse_size(text))
    assert found.device == "cuda"
    assert found.device_memory / GIB == pytest.approx(gibibytes, abs=1e-6)
    assert f"{gibibytes}" in found.note


def test_any_other_size_is_taken_as_given() -> None:
    assert Machine.gpu(parse_size("24GiB")).device_memory == 24 * GIB
    assert Machine.gpu(parse_size("22.5GB")).device_memory == 22_500_000_000


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", "MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    return tmp_path


def test_the_host_has_what_is_available(root: Path) -> None:
    assert machine.host_memory(root)[0] == 16_000_000 * 1024


def test_a_cgroup_of_version_2_limits_it(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/job/step\n")
    write(root, "sys/fs/cgroup/job/step/memory.max", "max\n")
    write(root, "sys/fs/cgroup/job/memory.max", str(4 * GIB))
    write(root, "sys/fs/cgroup/job/memory.current", str(3 * GIB))
    write(root, "sys/fs/cgroup/job/memory.stat", f"anon 5\ninactive_file {2 * GIB}\n")
    size, note = machine.host_memory(root)
    # the file cache is given back on demand
    assert size == 3 * GIB
    assert "cgroup" in note


def test_a_cgroup_of_version_1_limits_it(root: Path) -> None:
    write(root, "proc/self/cgroup", "4:memory:/docker/abc\n3:cpu:/\n")
    write(root, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", str(2 * GIB))
    write(root, "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", str(GIB))
    assert machine.host_memory(root)[0] == GIB


def test_no_limit_is_no_limit(root: Path) -> None:
    write(root, "proc/self/cgroup", "4:memory:/\n0::/\n")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write(root, "sys/fs/cgroup/memory.max", str(64 * GIB))
    assert machine.host_memory(root) == (16_384_000_000, "free memory of this machine")


def test_a_machine_without_proc_has_its_physical_memory(tmp_path: Path) -> None:
    assert machine.host_memory(tmp_path)[0] > 2**28


def test_the_probe_finds_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = Machine.probe()
    assert found.device == "cpu"
    assert found.device_memory == pytest.approx(found.host_memory)
    assert found.device_memory > 2**28
    assert found.cores == len(os.sched_getaffinity(0))


def _show_gpus(monkeypatch: pytest.MonkeyPatch, visible: str | None, table: str) -> None:
    def answer(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, stdout=table, stderr="")

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def _with_gpus(monkeypatch: pytest.MonkeyPatch, visible: str | None, table: str = TABLE) -> Machine:
    _show_gpus(monkeypatch, visible, table)
    return Machine.probe()


@pytest.mark.parametrize(
    ("visible", "name", "mebibytes"),
    [
        (None, "NVIDIA RTX A6000", 48669),
        ("1,0", "NVIDIA H100", 40000),
        ("GPU-bb", "NVIDIA H100", 40000),
    ],
)
def test_the_probe_takes_the_first_visible_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, name: str, mebibytes: int
) -> None:
    found = _with_gpus(monkeypatch, visible)
    assert (found.device, found.name) == ("cuda", name)
    assert found.device_memory == mebibytes * 2**20
    assert found.host_memory > 0


def test_memory_in_use_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "in use" in _with_gpus(monkeypatch, "1").note
    assert "in use" not in _with_gpus(monkeypatch, "0").note


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_hidden_gpus_are_not_found(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    assert _with_gpus(monkeypatch, visible).device == "cpu"


def test_a_gpu_without_memory_of_its_own_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "0, GPU-aaaa, NVIDIA GB10, [N/A], [N/A]\n"
    assert _with_gpus(monkeypatch, None, table).device == "cpu"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        subprocess.TimeoutExpired("nvidia-smi", 5),
        subprocess.CalledProcessError(9, "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer_means_no_gpu(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Machine.probe().device == "cpu"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["GPU-aa", "GPU-bb"]),
        ("1", ["1"]),
        ("GPU-bb,GPU-aa", ["GPU-bb", "GPU-aa"]),
        ("1,-1,0", ["1"]),
        ("", []),
        ("-1", []),
    ],
)
def test_the_gpus_have_names_that_show_each_alone(
    visible: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "0, GPU-aa, NVIDIA A, 24564, 24000\n1, GPU-bb, NVIDIA B, 81559, 80000\n"
    _show_gpus(monkeypatch, visible, table)
    assert gpus() == names
    for name in names:
        assert Machine.probe(name).name == ("NVIDIA A" if name == "GPU-aa" else "NVIDIA B")


def test_processes_of_a_cpu_share_its_memory_and_cores() -> None:
    whole = Machine("cpu", "CPU, 8 cores", 30_000, 30_000, 8, "free memory of this machine")
    assert whole.share(1) == replace(whole, seats=1)
    each = whole.share(3)
    assert (each.device_memory, each.host_memory, each.cores) == (10_000, 10_000, 2)
    assert each.seats == 3
    assert "one of 3 parts" in each.note
    again = Machine("cpu", "CPU, 8 cores", 30_000, 30_000, 8).share(4).alone()
    assert (again.name, again.device_memory, again.cores) == ("CPU, 8 cores", 30_000, 8)
    card = Machine("cuda", "GPU", 24, 90, 8).share(4)
    assert card.alone() == replace(card, seats=1)


def test_processes_with_a_gpu_each_share_the_host() -> None:
    each = Machine("cuda", "GPU", 24, 90, 8).share(4)
    assert (each.device_memory, each.host_memory, each.cores) == (24, 22, 2)


def test_of_several_gpus_the_one_with_least_room_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_gpus(monkeypatch, None)
    assert Machine.probe_for(1).device_memory == 48669 * 2**20
    both = Machine.probe_for(2)
    assert (both.name, both.device_memory) == ("NVIDIA H100", 40000 * 2**20)
    assert both.cores == max(1, Machine.probe().cores // 2)
