"""What waiting OpenMP threads cost where cores are shared: default against OMP_WAIT_POLICY=PASSIVE.

Runs `layers` bf16 products forward and backward with as many threads as cores, each policy in its
own process and in turn, with so many busy neighbours. Ratios of medians go to threads.json.

    python scripts/bench/threads.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS, RUNS, NEIGHBOURS = 3, 5, (0, 1, 2)
LAYERS, ROWS, WIDTH = 24, 256, 1024


def child() -> None:
    """Print the seconds of each run, in this process."""
    import torch
    from torch.nn import functional

    weights = [torch.randn(WIDTH, WIDTH).bfloat16() for _ in range(LAYERS)]
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        x = torch.randn(ROWS, WIDTH).bfloat16().requires_grad_()
        y = x
        for weight in weights:
            y = functional.silu(y @ weight.T * 0.03)
        y.float().sum().backward()
        seconds.append(time.perf_counter() - start)
    sys.stdout.write(json.dumps({"threads": torch.get_num_threads(), "seconds": seconds[1:]}))


def measure(policy: str | None, neighbours: int) -> list[float]:
    """Seconds of the runs of one process beside busy ones."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment.pop("OMP_NUM_THREADS", None)
    if policy is not None:
        environment["OMP_WAIT_POLICY"] = policy
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        answer = subprocess.run(
            [sys.executable, __file__, "child"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    seconds: list[float] = json.loads(answer.stdout)["seconds"]
    return seconds


def main() -> None:
    """Measure, print and write."""
    rows = []
    for neighbours in NEIGHBOURS:
        found: dict[str, list[float]] = {"default": [], "PASSIVE": []}
        load = os.getloadavg()[0]
        for _ in range(REPEATS):
            for name, seconds in found.items():
                seconds += measure(None if name == "default" else name, neighbours)
        medians = {name: statistics.median(seconds) for name, seconds in found.items()}
        row = {
            "busy_neighbours": neighbours,
            "load_before": round(load, 1),
            "seconds": {name: round(value, 4) for name, value in medians.items()},
            "speedup": round(medians["default"] / medians["PASSIVE"], 2),
        }
        sys.stdout.write(f"{row}\n")
        rows.append(row)
    result = {"cores": os.cpu_count(), "layers": LAYERS, "rows": ROWS, "width": WIDTH, "runs": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
