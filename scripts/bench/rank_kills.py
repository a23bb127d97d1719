"""Kill one process of a run at random moments and go on with 1, 2 and 3: is it the same adapter?

    python scripts/bench/rank_kills.py [RECIPE] [--rounds 10] [--set KEY=VALUE ...]

Every round starts `qtune train --processes 2`, ends one of the two with SIGKILL at a random moment,
and looks at the exit code, how long the others took, and what is left of them. Copies of what it
leaves are gone on with by 1, 2 and 3 processes, and each adapter is compared with that of a run of
2 without a break. Without RECIPE it trains the shipped quickstart for 24 steps in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

RESULT = Path(__file__).with_name("rank_kills.json")
PROCESSES, WITH = 2, (1, 2, 3)
LOST = 5
LEAST = 1e-5
LONG = 900.0
QUICKSTART = (
    *("train.max_steps=24", "checkpoint.steps=3", "eval.steps=12", "eval.generate_rows=0"),
    *("quantization.compute_dtype=float32", "model.offline=true", "logging.steps=1"),
)


def start(
    recipe: str, folder: Path, settings: list[str], processes: int
) -> subprocess.Popen[bytes]:
    """A run, or what is left to do of it."""
    options = [f"--set={setting}" for setting in (*settings, "checkpoint.resume=auto")]
    words = ["train", recipe, "-o", str(folder), "--quiet", "--processes", str(processes), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "qtune", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"RANK_KILLS": folder.name},
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a run that nothing disturbs."""
    _, said = process.communicate(timeout=LONG)
    if process.returncode:
        sys.exit(f"exit {process.returncode}: {said.decode()}")


def processes_of(folder: Path) -> dict[int, int]:
    """Process numbers of a run by rank; -1 is the one that started them."""
    mark, found = f"RANK_KILLS={folder.name}", {}
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            words = (place / "environ").read_bytes().decode(errors="replace").split("\0")
            if mark in words and (place / "cmdline").read_bytes():
                ranks = [word.removeprefix("RANK=") for word in words if word.startswith("RANK=")]
                found[int(ranks[0]) if ranks else -1] = int(place.name)
    return found


def steps_of(folder: Path) -> int:
    """Steps that a run has logged."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return 0
    return sum('"kind": "train"' in line for line in lines)


def straight(recipe: str, folder: Path, settings: list[str]) -> tuple[float, int]:
    """The run without a break; seconds until it learns, and its steps."""
    began = time.perf_counter()
    process = start(recipe, folder, settings, PROCESSES)
    while steps_of(folder) < 1 and process.poll() is None:
        time.sleep(0.02)
    starting = time.perf_counter() - began
    finish(process)
    return round(starting, 1), steps_of(folder)


def killed(
    recipe: str, folder: Path, settings: list[str], whole: tuple[float, int], draw: random.Random
) -> dict[str, Any]:
    """End one process: two times in three after a random step, else while they start."""
    process = start(recipe, folder, settings, PROCESSES)
    starting, steps = whole
    step = draw.randrange(steps) if draw.randrange(3) else None
    pause = draw.uniform(0.0, starting if step is None else 0.3)
    while step is not None and steps_of(folder) < step and process.poll() is None:
        time.sleep(0.02)
    time.sleep(pause)
    rank, victim = draw.randrange(PROCESSES), None
    while victim is None and process.poll() is None:
        victim = processes_of(folder).get(rank)
    began = time.perf_counter()
    if victim is not None:
        os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=LONG)
    took = time.perf_counter() - began
    saved = sorted(path.name for path in folder.glob("checkpoints/step-*"))
    return {
        "rank": None if victim is None else rank,
        "after_step": step,
        "code": process.returncode,
        "seconds_to_end": round(took, 1),
        "told": f"rank {rank} was killed by SIGKILL" in said.decode(),
        "left": len(processes_of(folder)),
        "newest": saved[-1] if saved else None,
    }


def difference(folder: Path, other: Path) -> tuple[float, bool]:
    """Largest difference of two adapters, and whether they are equal in every bit."""
    name = "adapter/adapter_model.safetensors"
    mine, theirs = load_file(folder / name), load_file(other / name)
    if mine.keys() != theirs.keys():
        sys.exit(f"{folder} has other tensors than {other}")
    largest = max(float((mine[key] - theirs[key]).abs().max()) for key in mine)
    return largest, (folder / name).read_bytes() == (other / name).read_bytes()


def one_round(
    recipe: str, place: Path, settings: list[str], whole: tuple[float, int], draw: random.Random
) -> dict[str, Any]:
    """Kill one, go on with copies of what is left."""
    folder = place / f"round-{draw.randrange(10**9)}"
    told = killed(recipe, folder, settings, whole, draw)
    while told["rank"] is None:  # it was done before
        shutil.rmtree(folder)
        told = killed(recipe, folder, settings, whole, draw)
    told["resumed"] = {}
    for processes in WITH:
        copy = folder.with_name(f"{folder.name}-{processes}")
        if folder.exists():
            shutil.copytree(folder, copy)
        finish(start(recipe, copy, settings, processes))
        largest, equal = difference(copy, place / "straight")
        told["resumed"][str(processes)] = {"difference": largest, "equal_bits": equal}
        shutil.rmtree(copy)
    shutil.rmtree(folder, ignore_errors=True)
    return told


def is_good(told: dict[str, Any]) -> bool:
    """Whether a round held what is promised."""
    ended = told["code"] == LOST and told["told"]
    same = told["resumed"][str(PROCESSES)]["equal_bits"]
    near = all(one["difference"] <= LEAST for one in told["resumed"].values())
    return bool(ended and not told["left"] and same and near)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst of all rounds."""
    worst = {
        str(processes): max(told["resumed"][str(processes)]["difference"] for told in rounds)
        for processes in WITH
    }
    return {
        "rounds": len(rounds),
        "killed_before_a_checkpoint": sum(told["newest"] is None for told in rounds),
        "most_seconds_to_end": max(told["seconds_to_end"] for told in rounds),
        "largest_difference": worst,
        "equal_bits": sum(told["resumed"][str(PROCESSES)]["equal_bits"] for told in rounds),
        "good": sum(is_good(told) for told in rounds),
    }


def main() -> None:
    """Run every round and write what came of them."""
    parser = argparse.ArgumentParser(description="Kill one process of a run and go on.")
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    asked = parser.parse_args()
    settings = [*(QUICKSTART if asked.recipe == "quickstart" else ()), *asked.settings]
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        whole = straight(asked.recipe, place / "straight", settings)
        rounds = []
        for number in range(asked.rounds):
            rounds.append(one_round(asked.recipe, place, settings, whole, draw))
            sys.stderr.write(f"round {number + 1}: {rounds[-1]}\n")
    report: dict[str, Any] = {"recipe": Path(asked.recipe).name, "settings": settings}
    report |= {"seconds_to_start": whole[0], "steps": whole[1]} | summary(rounds) | {"each": rounds}
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps({key: report[key] for key in report if key != "each"}) + "\n")
    sys.exit(report["good"] != report["rounds"])


if __name__ == "__main__":
    main()
