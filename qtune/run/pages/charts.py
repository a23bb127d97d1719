"""Which curves a run has: learning, evaluation, and what the machine did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.run.pages.figures import COLOURS, Chart, Line, smoothed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.run.pages.figures import Colour
    from qtune.run.pages.told import Told

_LOSSES = frozenset({"loss", "perplexity"})
_TIMES = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
_LEAST_UNITS = 5
_NO_CURVES = frozenset({"step"})
_MACHINE: tuple[tuple[str, str, bool, tuple[tuple[str, str, float], ...]], ...] = (
    (
        "Use",
        "",
        True,
        (("gpu_share", "GPU", 1), ("cpu_share", "CPU", 1), ("wait_share", "waiting for rows", 1)),
    ),
    (
        "Memory",
        "GB",
        False,
        (
            ("gpu_bytes", "GPU, all processes", 1e9),
            ("host_bytes", "this process, host", 1e9),
            ("host_free_bytes", "host, free", 1e9),
        ),
    ),
    ("Power", "W", False, (("gpu_watts", "GPU", 1),)),
    ("Temperature", "°C", False, (("gpu_celsius", "GPU", 1),)),
)


def learning(told: Told) -> list[Chart]:
    """Loss, other held-out measures, learning rate, gradient norm and tokens a second."""
    charts = [_loss(told), *_measures(told)]
    charts += [_plain(told, *each) for each in (("Learning rate", "learning_rate"),)]
    charts.append(_noisy(told, "Gradient norm", "grad_norm", note="before clipping"))
    charts.append(_noisy(told, "Tokens per second", "tokens_per_second", from_zero=True))
    charts.append(_plain(told, "Share of the limit", "limit_share", percent=True))
    return [chart for chart in charts if chart.is_drawable()]


def machine(told: Told) -> list[Chart]:
    """What was used of the machine, over the time of the run."""
    charts = []
    times = [one.get("seconds") for one in told.records.get("hardware", ())]
    longest = max((time for time in times if isinstance(time, int | float)), default=0.0)
    long_enough = (one for one in _TIMES if longest >= _LEAST_UNITS * one[1])
    unit_of_time, seconds = next(long_enough, _TIMES[-1])
    for title, unit, percent, names in _MACHINE:
        lines = []
        for (key, name, scale), colour in zip(names, COLOURS, strict=False):
            xs, ys = told.series("hardware", key, across="seconds")
            if xs:
                passed = [x / seconds for x in xs]
                scaled = [y / scale for y in ys]
                lines.append(Line(name=name, xs=passed, ys=scaled, colour=colour))
        chart = Chart(
            title=title,
            unit=unit,
            lines=lines,
            across=unit_of_time,
            percent=percent,
            from_zero=True,
        )
        charts.append(chart)
    return [chart for chart in charts if chart.is_drawable()]


def compared(runs: Sequence[tuple[str, Told]]) -> list[Chart]:
    """The curves of several runs over each other."""
    charts = [_together(runs, "Training loss", "train", "loss", smooth=True, wide=True)]
    measures = dict.fromkeys(name for _, told in runs for name in _names(told))
    charts += [
        _together(runs, f"Held out: {_words(name)}", "eval", name, smooth=False)
        for name in measures
    ]
    charts += [
        _together(runs, "Gradient norm", "train", "grad_norm", smooth=True),
        _together(runs, "Tokens per second", "train", "tokens_per_second", smooth=True),
        _together(runs, "Learning rate", "train", "learning_rate", smooth=False),
    ]
    return [chart for chart in charts if chart.is_drawable()]


def colour_of(index: int) -> Colour:
    """The colour of the run of that number."""
    return COLOURS[index % len(COLOURS)]


def _loss(told: Told) -> Chart:
    steps, losses = told.series("train", "loss")
    soft = smoothed(losses)
    lines = [Line(name="training", xs=steps, ys=soft)]
    if soft != losses:
        lines.insert(0, Line(name="each logged step", xs=steps, ys=losses, style="pale"))
    held = _held_out(told, "loss")
    mark = None
    if held is not None:
        lines.append(held)
        mark = next(
            ((x, y) for x, y in zip(held.xs, held.ys, strict=True) if x == told.result_step),
            None,
        )
    return Chart(
        title="Loss",
        unit="nats per token",
        lines=lines,
        may_be_logarithmic=True,
        wide=True,
        mark=mark,
        note="ring: the adapter" if mark else "",
    )


def _held_out(told: Told, name: str) -> Line | None:
    points = [
        (one["step"], one[name])
        for one in told.evaluations
        if isinstance(one.get(name), int | float)
    ]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return Line(name="held out", xs=xs, ys=ys, colour="c2", style="dots")


def _names(told: Told) -> Iterator[str]:
    seen = dict.fromkeys(name for one in told.evaluations for name in one)
    yield from (name for name in seen if name not in _NO_CURVES and not _is_end(name))


def _is_end(name: str) -> bool:
    return name.endswith(("_low", "_high"))


def _measures(told: Told) -> Iterator[Chart]:
    """Every held-out measure but the losses, which are one curve already."""
    shares = []
    for name in _names(told):
        line = _held_out(told, name)
        if name in _LOSSES or line is None:
            continue
        if all(0 <= y <= 1 for y in line.ys):
            shares.append((name, line))
        else:
            yield Chart(title=f"Held out: {_words(name)}", lines=[line])
    if shares:
        lines = [
            Line(name=_words(name), xs=line.xs, ys=line.ys, colour=colour, style="dots")
            for (name, line), colour in zip(shares, COLOURS, strict=False)
        ]
        yield Chart(title="Held-out measures", lines=lines, percent=True, from_zero=True)


def _plain(told: Told, title: str, key: str, *, percent: bool = False) -> Chart:
    xs, ys = told.series("train", key)
    return Chart(title=title, lines=[Line(name="", xs=xs, ys=ys)], percent=percent, from_zero=True)


def _noisy(told: Told, title: str, key: str, *, note: str = "", from_zero: bool = False) -> Chart:
    xs, ys = told.series("train", key)
    soft = smoothed(ys)
    lines = [Line(name="", xs=xs, ys=soft)]
    if soft != ys:
        lines.insert(0, Line(name="", xs=xs, ys=ys, style="pale"))
    log = not from_zero
    return Chart(title=title, lines=lines, note=note, from_zero=from_zero, may_be_logarithmic=log)


def _together(
    runs: Sequence[tuple[str, Told]],
    title: str,
    kind: str,
    key: str,
    *,
    smooth: bool,
    wide: bool = False,
) -> Chart:
    lines = []
    for index, (name, told) in enumerate(runs):
        if kind == "eval":
            held = _held_out(told, key)
            xs, ys = (list(held.xs), list(held.ys)) if held else ([], [])
        else:
            xs, ys = told.series(kind, key)
        if not xs:
            continue
        lines.append(
            Line(
                name=name,
                xs=xs,
                ys=smoothed(ys) if smooth else ys,
                colour=colour_of(index),
                style="dots" if kind == "eval" else "line",
            )
        )
    log = key in ("loss", "perplexity", "grad_norm")
    return Chart(title=title, lines=lines, wide=wide, may_be_logarithmic=log)


def _words(name: str) -> str:
    return name.replace("_", " ")
