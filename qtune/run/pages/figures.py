"""Curves drawn by matplotlib as SVG in the colours of the page, so that light and dark are one."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

Colour = Literal["c1", "c2", "c3", "c4", "c5", "c6", "ink", "quiet", "grid"]
COLOURS: tuple[Colour, ...] = ("c1", "c2", "c3", "c4", "c5", "c6")
# matplotlib knows no CSS variable: it draws in colours that nobody would use, replaced afterwards
_STANDINS: dict[Colour, str] = {
    name: f"#0{number}fe0{number}"
    for number, name in enumerate((*COLOURS, "ink", "quiet", "grid"), 1)
}
MOST_POINTS = 400
_LOGARITHMIC_FROM = 20.0
_SCIENTIFIC_BELOW = 0.01
_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "svg.fonttype": "none",  # text stays text: sharp, and found by a search
    "svg.hashsalt": "qtune",  # the same picture is the same file
    "path.simplify_threshold": 0.4,
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve; `style`: a line, a pale one behind the others, dots joined by a line, or a limit."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: Colour = "c1"
    style: Literal["line", "pale", "dots", "limit"] = "line"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over one another; `mark`: a point with a ring around it."""

    title: str
    lines: Sequence[Line]
    across: str = "step"
    unit: str = ""
    percent: bool = False
    from_zero: bool = False
    may_be_logarithmic: bool = False
    wide: bool = False
    mark: tuple[float, float] | None = None
    note: str = ""

    def is_drawable(self) -> bool:
        """Whether some curve has two points at least."""
        return any(len(line.xs) > 1 for line in self.lines if line.style != "limit")


def figure(chart: Chart, numbers: Iterator[int]) -> str:
    """The chart with its caption and key as HTML; `numbers` keeps the ids of a page apart."""
    keys = "".join(
        f'<span class="key {line.style}" style="--k: var(--{line.colour})">{escape(line.name)}'
        "</span>"
        for line in chart.lines
        if line.name
    )
    unit = f' <span class="quiet">{escape(chart.unit)}</span>' if chart.unit else ""
    note = f'<span class="quiet">{escape(chart.note)}</span>' if chart.note else ""
    kind = "wide figure" if chart.wide else "figure"
    return (
        f'<figure class="{kind}"><figcaption><b>{escape(chart.title)}</b>{unit}{keys}{note}'
        f"</figcaption>{svg(chart, next(numbers))}</figure>"
    )


def numbering() -> Iterator[int]:
    """Numbers for the pictures of one page."""
    return count(1)


def svg(chart: Chart, number: int) -> str:
    """The picture alone."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width, height = (10.4, 2.9) if chart.wide else (5.1, 2.3)
    with rc_context(_SETTINGS):
        drawn = Figure(figsize=(width, height))
        left, below = 0.62 / width, 0.42 / height
        axes = drawn.add_axes((left, below, 1 - left - 0.12 / width, 1 - below - 0.12 / height))
        for line in chart.lines:
            _draw(axes, line)
        if chart.mark is not None:
            axes.plot(*chart.mark, "o", ms=11, mfc="none", mec=_STANDINS["ink"], mew=1.4)
        _calm(axes, chart)
        target = io.StringIO()
        drawn.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return _themed(target.getvalue(), number, f"{chart.title} by {chart.across}")


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most about `MOST_POINTS` points: of more, the least and the most of each stretch, in
    their order, so that no peak is lost."""
    if len(xs) <= MOST_POINTS:
        return list(xs), list(ys)
    stretches = MOST_POINTS // 2
    edges = [index * len(xs) // stretches for index in range(stretches + 1)]
    chosen: list[int] = []
    for start, end in pairwise(edges):
        stretch = range(start, end)
        ends = {min(stretch, key=ys.__getitem__), max(stretch, key=ys.__getitem__)}
        chosen += sorted(ends)
    return [xs[index] for index in chosen], [ys[index] for index in chosen]


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of each value and those around it, a fiftieth of all of them."""
    reach = len(values) // 100
    if not reach:
        return list(values)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    edges = [
        (max(0, index - reach), min(len(values), index + reach + 1)) for index in range(len(values))
    ]
    return [(sums[end] - sums[start]) / (end - start) for start, end in edges]


def _draw(axes: Axes, line: Line) -> None:
    xs, ys = thinned(line.xs, line.ys)
    colour = _STANDINS[line.colour]
    if line.style == "limit":
        for y in set(ys):
            axes.axhline(y, color=colour, lw=1.2, ls=(0, (4, 3)))
    elif line.style == "pale":
        axes.plot(xs, ys, color=colour, lw=0.9, alpha=0.38)
    elif line.style == "dots" or len(xs) == 1:
        axes.plot(xs, ys, color=colour, lw=1.6, marker="o", ms=4.5)
    else:
        axes.plot(xs, ys, color=colour, lw=1.8, solid_joinstyle="round")


def _calm(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=_STANDINS["grid"], lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, colors=_STANDINS["quiet"])
    axes.set_xlabel(chart.across, color=_STANDINS["quiet"], labelpad=2, loc="right")
    axes.margins(x=0.015, y=0.08)
    ticks = 8 if chart.wide else 5
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if _is_logarithmic(chart):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        if chart.from_zero or chart.percent:
            axes.set_ylim(bottom=0, top=max(1.02, axes.get_ylim()[1]) if chart.percent else None)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    small = axes.get_ylim()[1] < _SCIENTIFIC_BELOW
    shown = _percent if chart.percent else _scientific if small else short
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def _is_logarithmic(chart: Chart) -> bool:
    values = [y for line in chart.lines for y in line.ys]
    if not chart.may_be_logarithmic or not values or min(values) <= 0:
        return False
    return max(values) / min(values) > _LOGARITHMIC_FROM


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _scientific(value: float) -> str:
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}" if value else "0"


def short(value: float) -> str:
    """A number of an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _themed(text: str, number: int, label: str) -> str:
    text = text[text.index("<svg") :]
    for name, standin in _STANDINS.items():
        text = text.replace(standin, f"var(--{name})")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>p{number}-", text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
