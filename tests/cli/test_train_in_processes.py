"""`qtune train --processes 2` for real: the death of one, a signal, and the way on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8},
    "data": {"train": [{"path": "train.jsonl"}]},
    "train": {"batch_size": 4, "max_steps": 100_000},
    "checkpoint": {"steps": 4, "resume": "auto"},
    "logging": {"steps": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", 24)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    words = ["train", "recipe.yaml", "-o", "run", "--processes", "2", "--json", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "qtune", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(process: subprocess.Popen[str]) -> list[int]:
    """In the order of their ranks, which is that of their start."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(int(number) for number in path.read_text().split())


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not holds() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert holds(), process.communicate()[1] if process.poll() is not None else "too slow"


def newest(folder: Path) -> int:
    saved = sorted((folder / "run" / "checkpoints").glob("step-*"))
    return int(saved[-1].name.removeprefix("step-")) if saved else 0


def is_there(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_is_stopped_goes_on_and_loses_one(folder: Path) -> None:
    process = start(folder)
    wait_until(lambda: newest(folder) > 0, process)
    ranks = children(process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    stopped = json.loads(said)["steps"]
    assert stopped == newest(folder)  # saved where it stopped
    assert not any(is_there(number) for number in ranks)

    process = start(folder, "--resume")
    wait_until(lambda: newest(folder) > stopped, process)
    ranks = children(process)
    os.kill(ranks[1], signal.SIGKILL)
    said, news = process.communicate(timeout=120)
    assert process.returncode == 5
    assert [line for line in news.splitlines() if "error" in line.lower()] == [
        "error: rank 1 was killed by SIGKILL, as the system does when memory runs out "
        "(--resume goes on from the last checkpoint)"
    ]
    assert "rank 1 was killed" in json.loads(said)["error"]["faults"][0]["message"]
    assert not any(is_there(number) for number in ranks)
    assert not (folder / "run" / ".lock").exists()
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "learning_rate" in line]
    assert steps == list(range(1, len(steps) + 1))  # none twice, none left out


def test_a_fault_that_all_meet_is_told_once(folder: Path) -> None:
    (folder / "train.jsonl").write_text("no row\n")
    said, news = start(folder).communicate(timeout=120)
    assert json.loads(said)["exit_code"] == 3
    assert news.count("error:") == 1
    assert "rank 1" not in news
