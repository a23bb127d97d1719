"""How long the verbs without a model take to start, against importing their own libraries.

    python scripts/bench/start.py

CPU seconds of whole processes, the median of `ROUNDS`, in turn with a process that imports typer,
rich, PyYAML and pydantic and nothing else; the ratio is what to look at, for machines differ.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 7
PEER = [sys.executable, "-c", "import pydantic, rich.console, rich.table, typer, yaml"]
VERBS = {
    "qtune validate": ["validate", "quickstart"],
    "qtune show": ["show", "quickstart"],
    "qtune schema": ["schema"],
    "qtune plan": ["plan", "quickstart"],
}
RESULT = Path(__file__).with_name("start.json")


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure every verb in turn with the peer and write the medians."""
    start = "import sys; from qtune.cli.app import run_app; sys.exit(run_app(sys.argv[1:]))"
    commands = {"imports only": PEER} | {
        name: [sys.executable, "-c", start, *verb] for name, verb in VERBS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            seconds[name].append(cpu_seconds(command))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    peer = median["imports only"]
    result = {
        name: {"cpu_seconds": round(value, 3), "ratio": round(value / peer, 2)}
        for name, value in median.items()
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(RESULT.read_text())


if __name__ == "__main__":
    main()
