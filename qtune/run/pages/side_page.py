"""Several runs side by side: curves over each other, differing keys of the recipes, measures."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtune.run.pages import charts
from qtune.run.pages.figures import figure, numbering
from qtune.run.pages.fragments import (
    NONE,
    Raw,
    brief,
    callout,
    card,
    duration,
    number,
    section,
    size,
    table,
)
from qtune.run.pages.measures import ENDS, with_ends
from qtune.run.pages.run_page import STATES
from qtune.run.pages.style import page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.run.pages.fragments import Cell
    from qtune.run.pages.told import Record, Told

_NO_SETTINGS = ("train.output_dir", "pins")


def side_page(runs: Sequence[Told]) -> str:
    """The runs as one page, each in its colour."""
    named = list(zip(_names(runs), runs, strict=True))
    numbers = numbering()
    drawn = "".join(figure(chart, numbers) for chart in charts.compared(named))
    body = [
        f"<header><h1>{len(runs)} runs side by side</h1></header>",
        card(_overview(named)),
        *(
            callout(f"{name}: {fault}" for fault in told.faults)
            for name, told in named
            if told.faults
        ),
        section("Curves", f'<div class="figures">{drawn}</div>' if drawn else ""),
        section("Held out, at the step of the adapter", card(_measures(named))),
        section("Recipes, where they differ", card(_recipes(named))),
        section("Where they ran, where it differs", card(_places(named))),
        "<footer>Made by <code>qtune report</code> from the files of the run folders.</footer>",
    ]
    return page("qtune runs side by side", "\n".join(filter(None, body)))


def _names(runs: Sequence[Told]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    paths = [told.folder.resolve().parts for told in runs]
    most = max(len(parts) for parts in paths)
    for length in range(1, most + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{told.look.name} ({index})" for index, told in enumerate(runs, 1)]


def _keys(named: Sequence[tuple[str, Told]]) -> list[Raw]:
    """The names of the runs in their colours, as heads of columns."""
    return [
        Raw(
            f'<span class="key line" style="--k: var(--{charts.colour_of(index)})">'
            f"{escape(name)}</span>"
        )
        for index, (name, _) in enumerate(named)
    ]


def _overview(named: Sequence[tuple[str, Told]]) -> str:
    rows = []
    for key, (_, told) in zip(_keys(named), named, strict=True):
        label, kind = STATES[told.look.state]
        failed = told.look.gates_failed
        if failed:
            label, kind = f"{failed} gate{'s' if failed > 1 else ''} failed", "bad"
        memory = told.report.get("memory")
        peak = memory.get("measured_peak_bytes") if isinstance(memory, dict) else None
        rows.append(
            (
                key,
                Raw(f'<span class="{kind}">{escape(label)}</span>'),
                number(told.look.step),
                f"{brief(told.look.loss_first)} → {brief(told.look.loss_last)}",
                number(told.look.tokens_per_second),
                size(peak),
                size(told.look.adapter_bytes),
                duration(told.report.get("seconds")),
            )
        )
    heads = ("run", "", "steps", "training loss", "tokens/s", "memory", "adapter", "time")
    return table(heads, rows, kinds=("k", "k", "n", "n", "n", "n", "n", "n"))


def _result(told: Told) -> Record:
    """The held-out measures of the weights that are the result, else the last."""
    evaluations = told.evaluations
    chosen = [one for one in evaluations if one["step"] == told.result_step] or evaluations[-1:]
    return chosen[0] if chosen else {}


def _measures(named: Sequence[tuple[str, Told]]) -> str:
    results = [_result(told) for _, told in named]
    ends = [
        next((e for e in told.records.get("interval", ()) if e.get("step") == one.get("step")), one)
        for (_, told), one in zip(named, results, strict=True)
    ]
    names = dict.fromkeys(name for one in results for name in one)
    rows: list[tuple[Cell, ...]] = [
        (
            name.replace("_", " "),
            *(with_ends(one, end, name) for one, end in zip(results, ends, strict=True)),
        )
        for name in names
        if not name.endswith(ENDS)
    ]
    return table(("measure", *_keys(named)), rows, kinds=("k", *["n"] * len(named)))


def _recipes(named: Sequence[tuple[str, Told]]) -> str:
    sides = [
        {
            line.key: line.value
            for line in told.recipe
            if line.value and not line.key.startswith(_NO_SETTINGS)
        }
        for _, told in named
    ]
    rows = list(_differing(sides))
    shown = table(("key", *_keys(named)), rows, kinds=("k",))
    return shown or '<p class="quiet">no key differs</p>'


def _places(named: Sequence[tuple[str, Told]]) -> str:
    sides = [dict(_facts(told)) for _, told in named]
    return table(("", *_keys(named)), list(_differing(sides)), kinds=("k",))


def _facts(told: Told) -> Iterator[tuple[str, str]]:
    machine = told.plan.get("machine")
    if isinstance(machine, dict) and machine.get("name"):
        yield "device", str(machine["name"])
    for key, value in told.environment.items():
        if isinstance(value, dict):
            yield from ((str(name), str(each)) for name, each in value.items())
        else:
            yield key, str(value)


def _differing(sides: Sequence[dict[str, str]]) -> Iterator[tuple[Cell, ...]]:
    for key in dict.fromkeys(key for side in sides for key in side):
        values = [side.get(key) for side in sides]
        if len(set(values)) > 1:
            yield (key, *(NONE if value is None else value for value in values))
