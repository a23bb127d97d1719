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
from statistics import median
from typing import TYPE_CHECKING, Any

import contestants
import pictures
import workload

if TYPE_CHECKING:
    from collections.abc import Iterable

ORDER = ("matmul", "trl", "qtune", "qtune-plain", "plain", "trl-bf16", "trl-tuned", "unsloth")
LABELS = {
    "matmul": "limit (4N)",
    "qtune": "qtune",
    "qtune-plain": "qtune, plain blocks",
    "plain": "transformers + PEFT loop",
    "trl": "TRL defaults",
    "trl-bf16": "TRL defaults on bf16",
    "trl-tuned": "TRL tuned",
    "unsloth": "Unsloth",
}
AGREE = 1e-3
WALL, CPU = "seconds", "cpu_seconds"
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


def summarise(
    runs: list[dict[str, Any]], counted: dict[str, list[int]], warm: int, clock: str = WALL
) -> Any:
    """Medians over the repeats of each contestant, and their ratios to TRL's defaults."""
    tokens, supervised = sum(counted["tokens"][warm:]), sum(counted["supervised"][warm:])
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(one["contestant"] for one in runs):
        mine = [one for one in runs if one["contestant"] == name]
        good = [one for one in mine if "failed" not in one]
        if not good:
            summary[name] = {"failed": mine[-1]["failed"]}
            continue
        seconds = [sum(one[clock][warm:]) for one in good]
        summary[name] = {
            "runs": len(good),
            "tokens_per_second": round(median(tokens / value for value in seconds), 1),
            "supervised_per_second": round(median(supervised / value for value in seconds), 1),
            "first_step_seconds": round(median(one["seconds"][0] for one in good), 2),
            "whole_seconds": round(median(one["whole_seconds"] for one in good), 1),
            "peak_mb": round(median(one["peak_bytes"] for one in good) / 1e6),
            "training_peak_mb": round(
                median(one["training_peak_bytes"] or one["peak_bytes"] for one in good) / 1e6
            ),
            "losses": good[-1]["losses"],
        }
    add_ratios(summary)
    return summary


def add_ratios(summary: dict[str, dict[str, Any]]) -> None:
    """Speed and memory against TRL's defaults, the share of the limit, and how losses differ."""
    good = {name: one for name, one in summary.items() if "failed" not in one}
    for name, one in good.items():
        for peer, label in (("trl", "trl"), ("trl-tuned", "trl_tuned"), ("unsloth", "unsloth")):
            if peer in good:
                faster = one["tokens_per_second"] / good[peer]["tokens_per_second"]
                one[f"speed_to_{label}"] = round(faster, 2)
        if "trl" in good:
            for key in ("peak_mb", "training_peak_mb"):
                one[f"{key}_to_trl"] = round(one[key] / good["trl"][key], 3)
        if "matmul" in good and name != "matmul":
            limit = good["matmul"]["tokens_per_second"]
            one["share_of_limit"] = round(one["tokens_per_second"] / limit, 3)
        if "plain" in good and one["losses"]:
            pairs = zip(one["losses"], good["plain"]["losses"], strict=True)
            one["loss_difference"] = float(f"{max(abs(a - b) / b for a, b in pairs):.2g}")
            one["losses_agree"] = one["loss_difference"] < AGREE


def show(size: str, summary: dict[str, dict[str, Any]]) -> None:
    """One size as a table, and the losses of each step beside each other."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=120)
    columns = ("run", "tokens/s", "learnt/s", "x TRL", "x tuned", "of limit", "peak MB", "of TRL")
    table = Table(
        *columns, "training MB", "loss differs", box=box.SIMPLE_HEAD, title=f"size {size}"
    )
    for name, one in summary.items():
        if "failed" in one:
            table.add_row(LABELS[name], one["failed"])
            continue
        values = (
            one["tokens_per_second"],
            one["supervised_per_second"],
            one.get("speed_to_trl"),
            one.get("speed_to_trl_tuned"),
            one.get("share_of_limit"),
            one["peak_mb"],
            one.get("peak_mb_to_trl"),
            one["training_peak_mb"],
            one.get("loss_difference"),
        )
        table.add_row(LABELS[name], *("" if value is None else f"{value:,}" for value in values))
    console.print(table)
    losses = {name: one["losses"] for name, one in summary.items() if one.get("losses")}
    beside = Table("step", *(LABELS[name] for name in losses), box=box.SIMPLE_HEAD)
    for step, row in enumerate(zip(*losses.values(), strict=True), 1):
        beside.add_row(str(step), *(f"{value:.4f}" for value in row))
    console.print(beside)


def draw(path: Path, sizes: dict[str, Any], warm: int, clock: str) -> None:
    """Tokens/s and peak memory of every size, with each run as a dot."""
    panels: dict[str, dict[str, list[float]]] = {}
    for size, one in sizes.items():
        speed = panels.setdefault(f"{size}: tokens/s", {})
        memory = panels.setdefault(f"{size}: peak MB", {})
        tokens = sum(one["counts"]["tokens"][warm:])
        for made in one["runs"]:
            if "failed" not in made:
                label = LABELS[made["contestant"]]
                speed.setdefault(label, []).append(tokens / sum(made[clock][warm:]))
                if made["contestant"] != "matmul":
                    memory.setdefault(label, []).append(made["peak_bytes"] / 1e6)
    if any(panels.values()):
        pictures.bars(path, panels)


def bench(arguments: argparse.Namespace, size_name: str, results: dict[str, Any]) -> None:
    """All runs of one size, written down one by one; `--resume` leaves out those that are there."""
    size = workload.SIZES[size_name]
    folder = arguments.folder / size_name
    workload.write(folder, size, rows=64 * size.batch, data=arguments.data)
    job = {"size": size_name, "folder": str(folder), "steps": arguments.steps}
    one = results["sizes"].setdefault(size_name, {"runs": []})
    one["counts"] = counts(folder, size, arguments.steps)
    one["parameters"] = size.parameters
    if not arguments.resume:
        one["runs"] = []
    one["runs"] = [made for made in one["runs"] if "failed" not in made]
    done = {(made["contestant"], made["repeat"]) for made in one["runs"]}
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
            one["summary"] = summarise(one["runs"], one["counts"], arguments.warm, arguments.clock)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")


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
    results |= {"machine": machine(), "clock": arguments.clock}
    results |= {"steps": arguments.steps, "warm": arguments.warm}
    for size in arguments.size:
        bench(arguments, size, results)
        show(size, results["sizes"][size]["summary"])
    if arguments.picture is not None:
        draw(arguments.picture, results["sizes"], arguments.warm, arguments.clock)


if __name__ == "__main__":
    main()
