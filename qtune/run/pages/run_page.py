"""The page of one run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtune.run.pages import charts
from qtune.run.pages.figures import figure, numbering
from qtune.run.pages.fragments import (
    Raw,
    bars,
    brief,
    callout,
    card,
    duration,
    folded,
    number,
    section,
    size,
    table,
    tiles,
)
from qtune.run.pages.measures import held_out_table, measured_tables
from qtune.run.pages.processes import processes
from qtune.run.pages.samples import sample_cards
from qtune.run.pages.style import page
from qtune.run.pages.told import compact
from qtune.runs.verdict import kept_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qtune.recipe.recorded import Recorded
    from qtune.run.pages.figures import Chart
    from qtune.run.pages.fragments import Cell
    from qtune.run.pages.told import Record, Told

STATES = {
    "finished": ("finished", "good"),
    "running": ("running", ""),
    "stopped": ("stopped, can go on", ""),
    "unfinished": ("not finished", ""),
    "failed": ("failed", "bad"),
    "damaged": ("damaged", "bad"),
}


def run_page(told: Told) -> str:
    """Everything the folder tells, the result first."""
    numbers = numbering()
    body = [
        _head(told),
        callout([told.look.reason] if told.look.reason else [], bad=True),
        callout(told.warnings()),
        tiles(_headline(told)),
        section("Gates", card(_gates(told))),
        section("Learning", _figures(charts.learning(told), numbers)),
        section("Held out", card(held_out_table(told)), *map(card, measured_tables(told))),
        section("Answers before and after", *sample_cards(told)),
        section("Memory, planned and measured", card(_memory(told))),
        section("Processes", card(processes(told))),
        section("The machine over time", _figures(charts.machine(told), numbers)),
        section("What the plan decided", card(_decisions(told))),
        section("Recipe", card(_asked(told.recipe), _whole(told.recipe))),
        section("Where it ran", card(_environment(told))),
        callout(told.faults),
        "<footer>Made by qtune from the files of the run folder; "
        "<code>qtune report</code> makes it again.</footer>",
    ]
    return page(f"{told.title}: a qtune run", "\n".join(filter(None, body)))


def _head(told: Told) -> str:
    label, kind = STATES[told.look.state]
    failed = told.look.gates_failed
    if failed:
        label, kind = f"{failed} gate{'s' if failed > 1 else ''} failed", "bad"
    values = {one.key: one.value for one in told.recipe if one.value}
    parts = [values.get(key, "") for key in ("model.name_or_path", "method.name", "method.type")]
    shown = [part.rpartition("/")[2] if "/" in part else part for part in parts[:1]] + parts[1:]
    told_when = (told.look.when or "")[:16].replace("T", " ")
    line = [*shown, f"{told.look.name}/", f"{told_when} UTC" if told_when else ""]
    return (
        f'<header><h1>{escape(told.title)}<span class="badge {kind}">{escape(label)}</span></h1>'
        f"<p>{escape(' · '.join(filter(None, line)))}</p></header>"
    )


def _headline(told: Told) -> Iterator[tuple[str, Cell]]:
    """The measures of the untouched model and of the result, then what it took."""
    evaluations = told.evaluations
    if evaluations:
        first = evaluations[0]
        result = next((e for e in evaluations if e["step"] == told.result_step), evaluations[-1])
        for name in ("loss", "exact_match", "token_f1", "accuracy", "macro_f1"):
            if name in result:
                change = f"{brief(first.get(name))} → {brief(result[name])}"
                shown = change if first is not result else brief(result[name])
                yield f"held-out {name.replace('_', ' ')}", shown
    elif told.look.loss_first is not None:
        losses = f"{brief(told.look.loss_first)} → {brief(told.look.loss_last)}"
        yield "training loss", losses
    total = told.look.total_steps
    done = number(told.look.step)
    yield "steps", done if total in (None, told.look.step) else f"{done} of {number(total)}"
    report = told.report
    if "seconds" in report:
        yield "time", duration(report["seconds"])
    if told.look.tokens_per_second is not None:
        share = report.get("limit_share")
        of = f" ({share:.0%} of the limit)" if isinstance(share, float) else ""
        yield "tokens per second", f"{told.look.tokens_per_second:,.0f}{of}"
    memory = report.get("memory")
    if isinstance(memory, dict) and "measured_peak_bytes" in memory:
        yield "memory at the peak", size(memory["measured_peak_bytes"])
    if told.look.adapter_bytes:
        yield "adapter", size(told.look.adapter_bytes)


def _figures(drawn: Iterable[Chart], numbers: Iterator[int]) -> str:
    inside = "".join(figure(chart, numbers) for chart in drawn)
    return f'<div class="figures">{inside}</div>' if inside else ""


def _gates(told: Told) -> str:
    rows: list[tuple[Cell, ...]] = []
    for verdict in kept_verdicts(told.report.get("gates")):
        kind, word = ("good", "held") if verdict.passed else ("bad", "failed")
        sides = (verdict.gate, verdict.shown_limit, verdict.shown_actual)
        rows.append((*sides, Raw(f'<span class="{kind}">{word}</span>')))
    return table(("gate", "limit", "reached", ""), rows, kinds=("k", "n", "n", ""))


def _memory(told: Told) -> str:
    """Each part as planned and, where it can be told apart, as measured."""
    memory = told.report.get("memory")
    figures: Record = memory if isinstance(memory, dict) else {}
    parts = told.objects(figures, "parts")
    if not parts:
        planned = told.objects(told.plan, "memory")
        parts = [
            {"part": one.get("part"), "predicted_bytes": one.get("bytes"), "measured_bytes": None}
            for one in planned
            if one.get("where") == "device"
        ]
    peak = {
        "part": "the peak",
        "predicted_bytes": figures.get("predicted_bytes", told.plan.get("device_bytes")),
        "measured_bytes": figures.get("measured_peak_bytes"),
    }
    rows = [*parts, peak] if parts or peak["predicted_bytes"] else []
    sizes = [
        (str(one.get("part", "")), _size(one, "predicted_bytes"), _size(one, "measured_bytes"))
        for one in rows
    ]
    most = max([1.0, *(side or 0.0 for _, *sides in sizes for side in sides)])
    lines: list[tuple[Cell, ...]] = [
        (name, bars(*(None if side is None else side / most for side in sides)), *map(size, sides))
        for name, *sides in sizes
    ]
    keys = (
        '<span class="key" style="--k: var(--c1)">planned</span> '
        '<span class="key" style="--k: var(--c2)">measured</span>'
    )
    heads = ("part", Raw(keys), "planned", "measured")
    return table(heads, lines, kinds=("k", "bars", "n", "n"))


def _size(record: Record, key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) else None


def _decisions(told: Told) -> str:
    rows = [
        tuple(compact(one.get(key, "")) for key in ("key", "value", "reason"))
        for one in told.objects(told.plan, "decisions")
    ]
    shown = table(("key", "value", "reason"), rows, kinds=("k", "", "quiet"))
    next_best = told.plan.get("next_best")
    if isinstance(next_best, str) and next_best:
        shown += f'<p class="quiet">The fastest other way that fits: {escape(next_best)}</p>'
    return shown


def _asked(lines: Iterable[Recorded]) -> str:
    rows = [(one.key, one.value, one.origin) for one in lines if one.is_asked]
    return table(("set in the recipe", "value", "where"), rows, kinds=("k", "", "quiet"))


def _whole(lines: Iterable[Recorded]) -> str:
    """The recipe as it was run, what was asked in bold."""
    shown = []
    for one in lines:
        kind = ' class="asked"' if one.is_asked else ""
        origin = f"  <i># {escape(one.origin)}</i>" if one.origin else ""
        shown.append(f"<span{kind}>{escape(one.text)}</span>{origin}")
    return folded("every key", f"<pre>{chr(10).join(shown)}</pre>" if shown else "")


def _environment(told: Told) -> str:
    machine = told.plan.get("machine")
    rows: list[tuple[str, str]] = []
    if isinstance(machine, dict) and machine.get("name"):
        note = f", {machine['note']}" if machine.get("note") else ""
        rows.append(("device", f"{machine['name']}, {size(machine.get('device_memory'))}{note}"))
    for key, value in told.environment.items():
        if isinstance(value, dict):
            rows += [(str(name), compact(version)) for name, version in value.items()]
        else:
            rows.append((key, compact(value)))
    fingerprint: Any = told.report.get("base_fingerprint")
    if isinstance(fingerprint, str):
        rows.append(("base", fingerprint))
    return table((), rows, kinds=("k", ""))
