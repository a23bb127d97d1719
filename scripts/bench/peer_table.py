"""What the runs of vs_peers.py come to: medians, ratios, a table, a picture."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
PEERS = {"trl": "trl", "trl-bf16": "trl_bf16", "trl-tuned": "trl_tuned", "unsloth": "unsloth"}
AGREE = 1e-3
WALL, CPU = "seconds", "cpu_seconds"


def summarise(one: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Medians over the repeats of each contestant of one size, and the ratios between them."""
    summary: dict[str, dict[str, Any]] = {}
    good = by_contestant(one)
    for name in dict.fromkeys(run["contestant"] for run in one["runs"]):
        if name in good:
            summary[name] = figures(one, good[name])
        else:
            failed = [run["failed"] for run in one["runs"] if run["contestant"] == name]
            summary[name] = {"failed": failed[-1]}
    add_ratios(one, good, summary)
    return summary


def by_contestant(one: dict[str, Any]) -> dict[str, dict[int, dict[str, Any]]]:
    """The runs that did not fail, by contestant and repeat."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for run in one["runs"]:
        if "failed" not in run:
            found.setdefault(run["contestant"], {})[run["repeat"]] = run
    return found


def taken(one: dict[str, Any], run: dict[str, Any]) -> float:
    """Seconds of a run's steps behind the warm-up."""
    return float(sum(run[one["clock"]][one["warm"] :]))


def figures(one: dict[str, Any], runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Speed, memory and losses of one contestant."""
    tokens, learnt = (sum(one["counts"][key][one["warm"] :]) for key in ("tokens", "supervised"))

    def middle(of: Callable[[dict[str, Any]], float], digits: int | None = None) -> Any:
        return round(median(of(run) for run in runs.values()), digits)

    return {
        "runs": len(runs),
        "tokens_per_second": middle(lambda run: tokens / taken(one, run), 1),
        "supervised_per_second": middle(lambda run: learnt / taken(one, run), 1),
        "first_step_seconds": middle(lambda run: run["seconds"][0], 2),
        "whole_seconds": middle(lambda run: run["whole_seconds"], 1),
        "peak_mb": middle(lambda run: run["peak_bytes"] / 1e6),
        "training_peak_mb": middle(
            lambda run: (run["training_peak_bytes"] or run["peak_bytes"]) / 1e6
        ),
        "losses": next(iter(runs.values()))["losses"],
    }


def add_ratios(
    one: dict[str, Any],
    good: dict[str, dict[int, dict[str, Any]]],
    summary: dict[str, dict[str, Any]],
) -> None:
    """Speed and memory against the peers, the share of the limit, and how losses differ.

    A ratio of speeds is the median of the repeats' own ratios: those two ran one after the other.
    """
    for name, runs in good.items():
        mine = summary[name]

        def faster(peer: str, digits: int, runs: dict[int, dict[str, Any]] = runs) -> float | None:
            both = runs.keys() & good.get(peer, {}).keys()
            ratios = [taken(one, good[peer][at]) / taken(one, runs[at]) for at in both]
            return round(median(ratios), digits) if ratios else None

        ratios = {f"speed_to_{label}": faster(peer, 2) for peer, label in PEERS.items()}
        if name != "matmul":
            ratios["share_of_limit"] = faster("matmul", 3)
        mine |= {key: value for key, value in ratios.items() if value is not None}
        for peer in ("trl", "trl-bf16"):
            if peer in good:
                share = mine["peak_mb"] / summary[peer]["peak_mb"]
                mine[f"peak_to_{PEERS[peer]}"] = round(share, 3)
        if "plain" in good and mine["losses"]:
            pairs = zip(mine["losses"], summary["plain"]["losses"], strict=True)
            mine["loss_difference"] = float(f"{max(abs(a - b) / b for a, b in pairs):.2g}")
            mine["losses_agree"] = mine["loss_difference"] < AGREE


COLUMNS = {
    "tokens/s": "tokens_per_second",
    "learnt/s": "supervised_per_second",
    "x TRL": "speed_to_trl",
    "x bf16": "speed_to_trl_bf16",
    "x tuned": "speed_to_trl_tuned",
    "x Unsloth": "speed_to_unsloth",
    "of limit": "share_of_limit",
    "peak MB": "peak_mb",
    "of TRL": "peak_to_trl",
    "loss differs": "loss_difference",
}


def show(size: str, summary: dict[str, dict[str, Any]]) -> None:
    """One size as a table, and the losses of each step beside each other."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130)
    table = Table("run", *COLUMNS, box=box.SIMPLE_HEAD, title=f"size {size}")
    for name, one in summary.items():
        values = [one.get(key) for key in COLUMNS.values()]
        told = ("" if value is None else f"{value:,}" for value in values)
        table.add_row(LABELS[name], *told)
    console.print(table)
    for name, one in summary.items():
        if "failed" in one:
            console.print(f"{LABELS[name]} did not run: {one['failed']}", markup=False)
    losses = {name: one["losses"] for name, one in summary.items() if one.get("losses")}
    beside = Table("step", *(LABELS[name] for name in losses), box=box.SIMPLE_HEAD)
    for step, row in enumerate(zip(*losses.values(), strict=True), 1):
        beside.add_row(str(step), *(f"{value:.4f}" for value in row))
    console.print(beside)


def draw(path: Path, sizes: dict[str, Any]) -> None:
    """Tokens/s and peak memory of every size, with each run as a dot."""
    panels: dict[str, dict[str, list[float]]] = {}
    for size, one in sizes.items():
        speed = panels.setdefault(f"{size}: tokens/s", {})
        memory = panels.setdefault(f"{size}: peak MB", {})
        tokens = sum(one["counts"]["tokens"][one["warm"] :])
        for name, runs in by_contestant(one).items():
            speed[LABELS[name]] = [tokens / taken(one, run) for run in runs.values()]
            if name != "matmul":
                memory[LABELS[name]] = [run["peak_bytes"] / 1e6 for run in runs.values()]
    pictures.bars(path, {title: values for title, values in panels.items() if values})
