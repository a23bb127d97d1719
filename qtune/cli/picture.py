"""The lengths of the rows as a picture, drawn by matplotlib as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from qtune.cli.page import GIVEN_COLOUR, LEARNT_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qtune.data.statistics import Bar
    from qtune.run.data_statistics import Statistics

INK, QUIET, _ROWS_COLOUR = "#1d2733", "#5d6b7a", "#4c78a8"
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 11.0,
    "svg.fonttype": "none",  # text stays text: sharp, and found by a search
    "svg.hashsalt": "qtune",  # the same picture is the same file
    "axes.edgecolor": "#c9d0d8",
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


def lengths_svg(measured: Statistics) -> str:
    """Two panels over row length: how many rows, and where the tokens are."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        _rows(above, measured)
        _tokens(below, measured.bars)
        below.set_xlim(left=0)
        below.set_xlabel("tokens in a row", color=QUIET)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    svg = target.getvalue()
    return svg[svg.index("<svg") :]


def _rows(axes: Axes, measured: Statistics) -> None:
    bars = measured.bars
    left, width = _places(bars)
    axes.bar(left, [bar.rows for bar in bars], width, align="edge", color=_ROWS_COLOUR)
    _calm(axes, "rows")
    top = max(bar.rows for bar in bars)
    for height, name, key in ((1.16, "median", "p50"), (1.05, "95%", "p95")):
        at = measured.quantiles[key]
        axes.axvline(at, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        axes.annotate(
            f"{name}: {at:,}",
            (at, top * height),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=10,
        )
    axes.set_ylim(0, top * 1.28)


def _tokens(axes: Axes, bars: list[Bar]) -> None:
    left, width = _places(bars)
    learnt = [bar.learnt for bar in bars]
    given = [bar.given for bar in bars]
    axes.bar(left, learnt, width, align="edge", color=LEARNT_COLOUR)
    axes.bar(left, given, width, bottom=learnt, align="edge", color=GIVEN_COLOUR)
    _calm(axes, "tokens")
    total = sum(learnt) + sum(given)
    labels = ((1.0, "given", sum(given), QUIET), (0.7, "learnt", sum(learnt), LEARNT_COLOUR))
    for right, name, count, colour in labels:
        axes.text(
            right,
            1.04,
            f"{name}: {count:,} ({count / total:.0%})",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            color=colour,
            fontweight="bold",
        )


def _places(bars: list[Bar]) -> tuple[list[float], float]:
    """Left edges and the width of the bars, with a thin gap between them."""
    width = bars[0].high - bars[0].low + 1
    return [bar.low - 1 + width * 0.04 for bar in bars], width * 0.92


def _calm(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color="#e7ebef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
