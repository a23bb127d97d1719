"""Memory that the system really refuses: a process under RLIMIT_AS."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from qtune.cli.app import run_app
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTES = 80  # for a step; eight rows of 800 tokens take twice as much, two of them half of it
LIMITED = """
import resource, sys
from qtune.cli.app import run_app
from qtune.oom import status
from qtune.run import train

def limited():
    size = status()["VmSize"] + {megabytes} * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

train.forget_peak = limited
sys.exit(run_app(sys.argv[1:]))
"""


def limited(folder: Path, *words: str) -> tuple[int, str]:
    """The exit code and the messages of a command whose steps are short of address space; in a
    process of its own, for memory that was freed before would be taken again below any limit."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(megabytes=MEGABYTES), *words],
        cwd=folder,
        # one arena: each thread's own would take 128 MB of addresses, in an order that is chance
        env={
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_a_limit_of_the_system_is_told_or_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "base", tiny_llama(max_position_embeddings=1024))
    sizes = (400, 5, 10, 15, 20, 25, 30, 35)
    rows = [{"prompt": "a" * size, "completion": "b" * size} for size in sizes]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "model": {"name_or_path": "base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "rank": 4},
        "data": {"train": [{"path": "train.jsonl"}], "max_length": 1000},
        "train": {"batch_size": 8, "max_steps": 1},
        "memory": {"micro_batch_size": 8, "activations": "none"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    command = ["train", "recipe.yaml", "-o"]
    code, said = limited(tmp_path, *command, "refused")
    assert code == 5, said
    refused = next(line for line in said.splitlines() if line.startswith("error: memory:"))
    assert " pass of 6,656 tokens: " in refused
    assert "MB more asked for, " in refused
    assert "memory.micro_batch_size=4 (saves " in refused
    monkeypatch.chdir(tmp_path)
    assert run_app([*command, "refused", "--resume", "-q"]) == 0, "with memory it goes on"
    code, said = limited(tmp_path, *command, "shrunk", "--set", "memory.on_oom=shrink")
    assert code == 0, said
    report = json.loads((tmp_path / "shrunk" / "report.json").read_text())
    assert [one["micro_batch_size"] for one in report["shrunk"]][:1] == [4]
    assert report["tokens"] == sum(2 * size + 1 for size in sizes)
