"""summary.md: a run on half a page, as CI systems show Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.plan import human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.runs.verdict import Verdict


def summary(report: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    """A finished run: what it did, what was measured, and every gate."""
    held = sum(verdict.passed for verdict in verdicts)
    gates = f": {held} of {len(verdicts)} gates held" if verdicts else ""
    parts = [f"### qtune: {_cell(report['recipe'])}{gates}", _facts(report)]
    parts += [f"**warning:** {_cell(doubt)}" for doubt in report.get("doubts", ())]
    if report["evaluations"]:
        parts.append(_held_out(report))
    if verdicts:
        parts.append(_gates(verdicts))
    return "\n\n".join(parts) + "\n"


def failure(name: str, lines: Sequence[str], code: int) -> str:
    """A run that ended early: why, in its own words."""
    told = "\n".join(f"- {_cell(line)}" for line in lines)
    return f"### qtune: {_cell(name)} ended with exit code {code}\n\n{told}\n"


def _facts(report: dict[str, Any]) -> str:
    rows = [("steps", f"{report['steps']:,}"), ("tokens", f"{report['tokens']:,}")]
    if report["loss_first"] is not None:
        rows.append(("loss", f"{report['loss_first']:.4f} → {report['loss_last']:.4f}"))
    if report["tokens_per_second"] is not None:
        rows.append(("tokens a second", f"{report['tokens_per_second']:,}"))
    rows += [
        ("memory, peak", human(report["memory"]["measured_peak_bytes"])),
        ("time", f"{report['seconds']:,.0f} s"),
        ("adapter", f"of step {report['adapter_step']}"),
    ]
    return _table(("", ""), rows)


def _held_out(report: dict[str, Any]) -> str:
    """The measures at the start, at the step of the adapter, and at the end."""
    evaluations = {record["step"]: record for record in report["evaluations"]}
    adapter = report["adapter_step"]
    steps = sorted({min(evaluations), adapter, max(evaluations)} & evaluations.keys())
    head = ["held out"]
    head += [f"step {step}" + (" (adapter)" if step == adapter else "") for step in steps]
    names = [name for name in evaluations[steps[-1]] if name != "step"]
    rows = [
        (_cell(name), *(f"{evaluations[step].get(name, float('nan')):.4f}" for step in steps))
        for name in names
    ]
    return _table(head, rows)


def _gates(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (
            f"`{verdict.gate}`",
            verdict.shown_limit,
            verdict.shown_actual,
            "passed" if verdict.passed else "**failed**",
        )
        for verdict in verdicts
    ]
    return _table(("gate", "limit", "actual", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that neither ends a table's cell nor becomes markup."""
    for mark in "\\`*_<>|[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
