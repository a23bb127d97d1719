"""The pictures of the benchmarks, drawn without a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OURS, OTHERS = "#1f6fb4", "#b8c4ce"


def _canvas(columns: int, width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "qtune"  # the same picture, the same file
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(width, height), squeeze=False)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)


def bars(path: Path, panels: Mapping[str, Mapping[str, list[float]]]) -> None:
    """A panel of horizontal bars a title: the median of each name's values, which stand as dots."""
    from statistics import median

    figure, axes = _canvas(len(panels), 5.0 * len(panels), 3.2)
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        names = list(values)[::-1]
        colours = [OURS if name.startswith("qtune") else OTHERS for name in names]
        middles = [median(values[name]) for name in names]
        axis.barh(names, middles, color=colours)
        for row, name in enumerate(names):
            axis.plot(values[name], [row] * len(values[name]), "k.", markersize=4)
            told = f" {middles[row]:,.0f}" if middles[row] >= 100 else f" {middles[row]:.3g}"
            axis.annotate(told, (middles[row], row), va="center", fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def stacked(path: Path, title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """One bar a row, made of its parts; the parts have the same colours in all rows."""
    figure, axes = _canvas(1, 10.0, 1.6 + 0.7 * len(rows))
    axis = axes[0][0]
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    left = dict.fromkeys(rows, 0.0)
    for number, part in enumerate(parts):
        widths = [row.get(part, 0.0) for row in rows.values()]
        axis.barh(list(rows), widths, left=list(left.values()), label=part, color=f"C{number}")
        for name, width in zip(rows, widths, strict=True):
            left[name] += width
    axis.set_title(title, fontsize=10)
    axis.invert_yaxis()
    axis.legend(ncols=5, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)
