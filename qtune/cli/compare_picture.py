"""A comparison as a picture: a small chart for each axis, the methods down, drawn by matplotlib."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.cli.picture import INK, QUIET, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

_COLOUR, _LIGHT, _BASE = "#4c78a8", "#a9c3de", "#b9c1cb"
_ROW_INCHES, _HEAD_INCHES = 0.30, 0.95


@dataclass(frozen=True)
class Panel:
    """A chart: the numbers of a row, the second one paler; `dots` and a `mark` stand on the bar."""

    title: str
    unit: str
    value: Callable[[dict[str, Any]], float | None]
    paler: Callable[[dict[str, Any]], float | None] | None = None
    dots: Callable[[dict[str, Any]], list[float]] | None = None
    mark: Callable[[dict[str, Any]], float | None] | None = None
    logarithmic: bool = False


def comparison_svg(report: dict[str, Any], shown: list[Panel]) -> str:
    """All charts beside one another, with one list of names."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = report["rows"]
    with rc_context(SETTINGS):
        height = _HEAD_INCHES + _ROW_INCHES * len(rows)
        figure = Figure(figsize=(2.1 * len(shown) + 1.2, height), layout="constrained")
        every = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for panel, axes in zip(shown, every, strict=True):
            _draw(axes, panel, rows)
        every[0].set_yticks(range(len(rows)), [row["name"] for row in rows], color=INK)
        every[0].set_ylim(len(rows) - 0.4, -0.6)
        for number, row in enumerate(rows):
            if row["reason"]:
                where = every[0].get_yaxis_transform()
                every[0].text(0, number, " refused", transform=where, va="center", color=QUIET)
        target = io.StringIO()
        figure.savefig(target, format="svg", facecolor="white", metadata={"Date": None})
    svg = target.getvalue()
    return svg[svg.index("<svg") :]


def panels(report: dict[str, Any]) -> list[Panel]:
    """Storage, memory, compute, every held-out measure, and the latency of a token."""
    return [
        Panel("adapter", "bytes", lambda row: row["storage"]["adapter_bytes"], logarithmic=True),
        Panel(
            "memory",
            "bytes: training, paler in use",
            lambda row: row["memory"]["training_peak_bytes"],
            paler=lambda row: row["memory"]["inference_peak_bytes"],
        ),
        Panel("speed", "tokens/s, training", lambda row: row["compute"]["tokens_per_second"]),
        Panel(
            "FLOPs",
            "a token: training, paler forward",
            lambda row: row["compute"]["training_flops_per_token"],
            paler=lambda row: row["compute"]["forward_flops_per_token"],
        ),
        *map(measure, report["measures"]),
        Panel(
            "latency",
            "s a token, paler merged, | base",
            lambda row: row["inference"]["seconds_per_token"],
            paler=lambda row: row["inference"]["merged_seconds_per_token"],
            mark=lambda row: row["inference"]["base_seconds_per_token"],
        ),
    ]


def measure(name: str) -> Panel:
    """A held-out measure of each row."""
    return Panel(
        name.replace("_", " "),
        "held out, a dot a seed",
        lambda row: row["accuracy"].get(name, {}).get("mean"),
        dots=lambda row: row["accuracy"].get(name, {}).get("values", []),
    )


def _draw(axes: Axes, panel: Panel, rows: list[dict[str, Any]]) -> None:
    """A bar a row; where nothing is known, nothing."""
    values = [panel.value(row) or 0.0 for row in rows]
    colours = [_BASE if row["kind"] == "base" else _COLOUR for row in rows]
    thick = 0.62 if panel.paler is None else 0.36
    shift = 0.0 if panel.paler is None else -0.18
    places = [number + shift for number in range(len(rows))]
    axes.barh(places, values, height=thick, color=colours)
    if panel.paler is not None:
        paler = [panel.paler(row) or 0.0 for row in rows]
        places = [number - shift for number in range(len(rows))]
        axes.barh(places, paler, height=thick, color=_LIGHT)
    for number, row in enumerate(rows):
        if panel.dots is not None and row["kind"] != "base":
            dots = panel.dots(row)
            axes.plot(dots, [number] * len(dots), "o", color=INK, markersize=2.5)
        mark = None if panel.mark is None else panel.mark(row)
        if mark is not None and row["kind"] != "base":
            axes.plot([mark, mark], [number - 0.36, number], "-", color=INK, linewidth=1.2)
    _calm(axes, panel, max(values, default=0.0))


def _calm(axes: Axes, panel: Panel, top: float) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

    axes.set_title(panel.title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(panel.unit, fontsize=9, color=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#e7ebef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9)
    if panel.logarithmic and top > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
