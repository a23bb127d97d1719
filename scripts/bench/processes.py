"""One process with all cores beside two that share them: qtune, and PEFT's loop under torch's DDP.

    python scripts/bench/processes.py [--size S] [--steps 6] [--repeats 2]

All train the same rows from the same weights, in turn, so that what else the machine does meets
all of them. On a CPU two processes win nothing that two threads do not: what is measured is what
going together costs. `losses` are told, too; DDP averages over processes, not over tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vs_peers
import workload

RESULT = Path(__file__).with_suffix(".json")
FSDP = "distributed.strategy=fsdp"
RUNS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "qtune, 1 process": ("qtune", 1, ()),
    "qtune, 2 processes": ("qtune", 2, ()),
    "qtune, 2 processes, layers spread": ("qtune", 2, (FSDP,)),
    "PEFT, 1 process": ("plain", 1, ()),
    "PEFT under DDP, 2 processes": ("plain-ddp", 2, ()),
}


def measure(name: str, folder: Path, size: str, steps: int) -> dict[str, Any]:
    """Seconds of each step, its losses and the peak of the first process."""
    contestant, processes, overrides = RUNS[name]
    job = {"folder": str(folder), "size": size, "steps": steps, "overrides": overrides}
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    together = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    together += ["--local-ranks-filter=0"]  # the first one tells
    with tempfile.TemporaryDirectory() as place:
        asked = Path(place) / "job.json"
        asked.write_text(json.dumps(job))
        script = str(Path(__file__).with_name("contestants.py"))
        done = subprocess.run(
            [sys.executable, *(together if processes > 1 else ()), script, contestant, str(asked)],
            capture_output=True,
            text=True,
            cwd=place,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
            check=False,
        )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = max(told, key=lambda one: len(one["seconds"]))
    return found


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=workload.SIZES, default="S")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    size = workload.SIZES[asked.size]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        workload.write(folder, size, rows=size.batch * asked.steps)
        for _ in range(asked.repeats):
            for name in RUNS:
                runs[name].append(measure(name, folder, asked.size, asked.steps))
        tokens = sum(vs_peers.counts(folder, size, asked.steps)["tokens"][1:])
    summary = {}
    for name, found in runs.items():
        rates = [tokens / sum(one["seconds"][1:]) for one in found]  # the first step warms up
        peak = max(one["training_peak_bytes"] or one["peak_bytes"] for one in found)
        losses = found[-1]["losses"]
        rate = round(statistics.median(rates), 1)
        summary[name] = {"tokens_per_second": rate, "peak_bytes": peak, "losses": losses}
        print(f"{name:36} {rate:8.1f} tokens/s  {peak / 1e9:.2f} GB a process  last {losses[-1]}")
    told = {"size": asked.size, "steps": asked.steps, "repeats": asked.repeats}
    result = told | {"machine": vs_peers.machine(), "runs": summary}
    asked.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
