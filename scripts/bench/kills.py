"""Kill training at random moments and go on: is the result that of the run without a break?

    python scripts/bench/kills.py [RECIPE] [--rounds 20] [--set KEY=VALUE ...]

Every round starts `qtune train` as a process, ends it with SIGKILL (or, each third time, TERM) at
a random moment, a few times over, lets it finish, and compares the adapter's sha256, the last
training state and the logged losses with those of a straight run. Without RECIPE it trains the
shipped quickstart for 30 steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).with_name("kills.json")
START = "from qtune.cli.app import main; main()"
QUICKSTART = ("train.max_steps=30", "eval.steps=10", "eval.generate_rows=0", "checkpoint.steps=2")
KILLS = 3


def command(recipe: str, folder: Path, settings: list[str]) -> list[str]:
    """A training process that goes on where it can."""
    options = [f"--set={setting}" for setting in (*settings, "checkpoint.resume=auto")]
    return [sys.executable, "-c", START, "train", recipe, "-o", str(folder), "--quiet", *options]


def kill_after(arguments: list[str], seconds: float, number: signal.Signals) -> int:
    """Run a process for so long at most; returns its exit code."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, said = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL, 128 + signal.SIGTERM):
        sys.exit(f"exit {process.returncode}: {said.decode()}")
    return process.returncode


def results(folder: Path) -> dict[str, Any]:
    """What must be equal: hashes of the adapter and the last state, the logged numbers."""
    last = max((folder / "checkpoints").iterdir())
    files = [*(folder / "adapter").iterdir(), last / "training.safetensors"]
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "metrics": [
            {key: value for key, value in line.items() if key != "tokens_per_second"}
            for line in lines
        ],
    }


def one_round(
    recipe: str, folder: Path, settings: list[str], seconds: float, draw: random.Random
) -> dict[str, Any]:
    """Break a run a few times, then let it finish."""
    arguments = command(recipe, folder, settings)
    deaths = []
    for attempt in range(KILLS):
        number = signal.SIGTERM if attempt == KILLS - 1 else signal.SIGKILL
        if kill_after(arguments, draw.uniform(0.2, seconds), number) == 0:
            break
        saved = sorted(path.name for path in folder.glob("checkpoints/step-*"))
        deaths.append({"signal": number.name, "newest": saved[-1] if saved else None})
    kill_after(arguments, 20 * seconds + 60, signal.SIGKILL)
    return {"deaths": deaths, "results": results(folder)}


def main() -> None:
    """Run every round and write what came of them."""
    parser = argparse.ArgumentParser(description="Kill training and go on.")
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    asked = parser.parse_args()
    settings = [*(QUICKSTART if asked.recipe == "quickstart" else ()), *asked.settings]
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        straight = Path(place) / "straight"
        began = time.perf_counter()
        kill_after(command(asked.recipe, straight, settings), 3600, signal.SIGKILL)
        seconds = time.perf_counter() - began
        expected = results(straight)
        rounds = []
        for number in range(asked.rounds):
            folder = Path(place) / f"round-{number}"
            told = one_round(asked.recipe, folder, settings, seconds, draw)
            told["equal"] = told.pop("results") == expected
            rounds.append(told)
            sys.stderr.write(f"round {number + 1}: {told}\n")
    report = {
        "recipe": Path(asked.recipe).name,
        "settings": settings,
        "straight_seconds": round(seconds, 1),
        "rounds": len(rounds),
        "kills": sum(death["signal"] == "SIGKILL" for told in rounds for death in told["deaths"]),
        "terms": sum(death["signal"] == "SIGTERM" for told in rounds for death in told["deaths"]),
        "equal": sum(told["equal"] for told in rounds),
        "each": rounds,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps({key: report[key] for key in report if key != "each"}) + "\n")
    sys.exit(report["equal"] != report["rounds"])


if __name__ == "__main__":
    main()
