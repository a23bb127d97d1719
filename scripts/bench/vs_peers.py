"""qtune against transformers + PEFT, TRL and Unsloth: same model, rows, seed and first weights.

    python scripts/bench/vs_peers.py [--size S M] [--repeats 3] [--steps 8] [--resume]

Every run is a process of its own; contestants take turns, so that a slow minute of the machine
meets all of them. Tokens/s count no padding and leave out the first steps (`--warm`). `matmul` is
the 4N limit: the products with the frozen weights alone. A contestant that does not run is told
with its reason. `pip install 'qtune[bench]'` brings TRL and PEFT; Unsloth asks for other versions
and wants a place of its own: --unsloth-python ENVIRONMENT/bin/python. On a machine that others
use, OMP_NUM_THREADS=1 and `--clock cpu` count the seconds of the processor instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import contestants
import workload
from peer_table import CPU, LABELS, WALL, draw, show, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable

ORDER = ("matmul", "trl", "qtune", "qtune-plain", "plain", "trl-bf16", "trl-tuned", "unsloth")
TIMEOUT = 3600


def run(name: str, job: dict[str, Any], python: str) -> dict[str, Any]:
    """One contestant in a fresh process: its figures, or `failed` with the last line it said."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        script = str(Path(__file__).with_name("contestants.py"))
        try:
            done = subprocess.run(
                [python, script, name, file.name],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                cwd=tempfile.gettempdir(),  # Unsloth writes where it stands
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"failed": str(error)}
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return {"failed": said[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def missing(name: str, python: str) -> str | None:
    """Why a contestant cannot run, if its packages are not there."""
    needed = {"plain": "peft", "unsloth": "unsloth"}.get(name)
    if name.startswith("trl"):
        needed = "trl"
    if needed is None:
        return None
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({needed!r}) is None)"
    try:
        absent = subprocess.run([python, "-c", look], check=False).returncode
    except OSError as error:
        return str(error)
    return f"{needed} is not installed" if absent else None


def counts(folder: Path, size: workload.Size, steps: int) -> dict[str, list[int]]:
    """Tokens and learnt tokens of each step, and what padding to the longest row makes of them."""
    rows = workload.read_rows(folder)
    told: dict[str, list[int]] = {"tokens": [], "supervised": [], "padded": []}
    for step in range(steps):
        batch = rows[step * size.batch : (step + 1) * size.batch]
        lengths = [len(row["input_ids"]) for row in batch]
        told["tokens"].append(sum(lengths))
        told["padded"].append(max(lengths) * len(lengths))
        # the first label is of no use: nothing stands before it
        learnt = [sum(label != -100 for label in row["labels"][1:]) for row in batch]
        told["supervised"].append(sum(learnt))
    return told


def bench(arguments: argparse.Namespace, size_name: str, results: dict[str, Any]) -> None:
    """All runs of one size, written down one by one; `--resume` leaves out those that are there."""
    size = workload.SIZES[size_name]
    folder = arguments.folder / (size_name if arguments.data is None else f"{size_name}-data")
    workload.write(folder, size, rows=64 * size.batch, data=arguments.data)
    job = {"size": size_name, "folder": str(folder), "steps": arguments.steps}
    settings = {key: getattr(arguments, key) for key in ("steps", "warm", "clock")}
    one = results["sizes"].get(size_name, {})
    goes_on = arguments.resume and all(one.get(key) == value for key, value in settings.items())
    known = [run for run in one.get("runs", ()) if goes_on and "failed" not in run]
    results["sizes"][size_name] = one = {"parameters": size.parameters, **settings, "runs": known}
    one["counts"] = counts(folder, size, arguments.steps)
    done = {(run["contestant"], run["repeat"]) for run in known}
    for repeat in range(1, arguments.repeats + 1):
        for name in ordered(arguments.contestants):
            if (name, repeat) in done:
                continue
            python = arguments.unsloth_python if name == "unsloth" else sys.executable
            why = missing(name, python)
            overrides = arguments.set if name.startswith("qtune") else []
            found = {"failed": why} if why else run(name, {**job, "overrides": overrides}, python)
            one["runs"].append({"contestant": name, "repeat": repeat, **found})
            told = found.get("failed") or f"{sum(found[arguments.clock][arguments.warm :]):.1f} s"
            print(f"{size_name} repeat {repeat} {LABELS[name]}: {told}", file=sys.stderr)
            one["summary"] = summarise(one)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    one["summary"] = summarise(one)


def ordered(names: Iterable[str]) -> list[str]:
    """The contestants in their turn."""
    return [name for name in ORDER if name in set(names)]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import platform

    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=workload.SIZES, default=["S"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm", type=int, default=2, help="first steps that are not counted")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    choices = list(contestants.CONTESTANTS)
    parser.add_argument("--contestants", nargs="+", choices=choices, default=choices)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of qtune's recipe")
    parser.add_argument("--data", type=Path, help="an alpaca file in place of made-up rows")
    default = Path(tempfile.gettempdir()) / "qtune-bench"
    parser.add_argument("--folder", type=Path, default=default, help="where made models are kept")
    parser.add_argument("--unsloth-python", default=sys.executable)
    parser.add_argument("--resume", action="store_true", help="keep the runs that are there")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--picture", type=Path, help="an .svg or .png")
    arguments = parser.parse_args()
    arguments.clock = CPU if arguments.clock == "cpu" else WALL
    if arguments.steps <= arguments.warm:
        arguments.warm = arguments.steps - 1
    return arguments


def main() -> None:
    """Run, show, write and draw."""
    arguments = parse()
    results: dict[str, Any] = {"sizes": {}}
    if arguments.resume and arguments.output.exists():
        results = json.loads(arguments.output.read_text())
    results["machine"] = machine()
    for size in arguments.size:
        bench(arguments, size, results)
        show(size, results["sizes"][size]["summary"])
    if arguments.picture is not None:
        draw(arguments.picture, results["sizes"])


if __name__ == "__main__":
    main()
