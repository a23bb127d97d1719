"""The numbers of `qtune data stats` for a terminal."""

from __future__ import annotations

from itertools import dropwhile
from typing import TYPE_CHECKING

from rich.text import Text

from qtune.cli.colours import LEARNT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from qtune.data.statistics import Bar
    from qtune.run.data_statistics import Statistics

FILL_NAMES = {
    "padded": "padding",
    "grouped": "group_by_length",
    "packed": "packing",
    "packed_whole": "packing, all rows at once",
}
_FULL, _EMPTY, _THIN = "█", "░", "▏"
_WIDEST = 48
_LABELS = 12


def show(measured: Statistics, console: Console) -> None:
    """Sources, lengths, fill and what else there is to know."""
    piped = not console.is_terminal
    wide = min(_WIDEST, console.width - 28)
    title = f"share of real tokens in the tensors, {measured.micro_batch_size} rows a micro-batch"
    console.print(Text(measured.name, style="bold").append(": ").append(counts_line(measured)))
    blocks: tuple[list[Text | Table], ...] = (
        [source_table(measured)],
        [*_lengths(measured, wide)],
        [Text(title, style="bold"), *fill_lines(measured.fill, width=min(30, wide))]
        if measured.fill
        else [],
        [Text.assemble((f"{name}: ", "bold"), value) for name, value in facts(measured)],
    )
    for block in filter(None, blocks):
        console.print()
        for part in block:
            console.print(part, soft_wrap=piped and isinstance(part, Text))


def _lengths(measured: Statistics, wide: int) -> list[Text]:
    """How long rows are, or that all are alike."""
    if not measured.fill:
        tokens = measured.counts["longest"] - 1
        return [Text(f"every image is {tokens:,} tokens; nothing is padded", style="bold")]
    bars = histogram_lines(measured.bars, width=wide)
    return [Text(quantile_line(measured), style="bold"), *bars]


def counts_line(measured: Statistics) -> str:
    """Rows, tokens and the learnt share."""
    counts = measured.counts
    return (
        f"{counts['rows']:,} training rows, {counts['tokens']:,} tokens, "
        f"{counts['supervised_tokens']:,} learnt ({counts['supervised_share']:.1%})"
    )


def quantile_line(measured: Statistics) -> str:
    """How long the rows are."""
    found = measured.quantiles
    return (
        f"tokens a row: median {found['p50']:,}, 95% up to {found['p95']:,}, "
        f"longest {measured.counts['longest']:,} of {measured.report.max_length:,}"
    )


def source_table(measured: Statistics) -> Table:
    """What became of the rows of each source."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold")
    table.add_column("format", overflow="fold")
    for name in ("read", "used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("dropped", style="yellow")
    for row in source_rows(measured):
        table.add_row(*map(Text, row))
    return table


def source_rows(measured: Statistics) -> Iterator[tuple[str, str, str, str, str]]:
    """Source, format, rows read, rows used, rows dropped and why."""
    report = measured.report
    for use, sources in (("", report.train_sources), (" (eval)", report.eval_sources)):
        for source in sources:
            reasons = (f"{count:,} {reason}" for reason, count in source.dropped.items())
            used = f"{source.used:,}" + ("" if source.unit == "rows" else f" {source.unit}")
            yield (
                source.path + use,
                source.format,
                f"{source.read:,}",
                used,
                ", ".join(reasons) or "-",
            )


def histogram_lines(bars: Sequence[Bar], *, width: int) -> list[Text]:
    """A bar for each range of lengths, as long as it has rows; its full part is learnt."""
    most = max(bar.rows for bar in bars)
    label = len(f"{bars[-1].high:,}")
    lines = []
    for bar in dropwhile(lambda bar: not bar.rows, bars):
        size = round(bar.rows / most * width)
        full = round(size * bar.learnt / (bar.learnt + bar.given)) if bar.rows else 0
        line = Text(f"{bar.low:>{label},} - {bar.high:>{label},} ")
        line.append(_FULL * full, style=LEARNT)
        line.append(_EMPTY * (size - full), style="dim")
        line.append(_THIN if bar.rows and not size else "", style="dim")
        line.append(f" {bar.rows:,}" if bar.rows else "")
        lines.append(line)
    key = Text(f"{'tokens':>{2 * label + 3}} ", style="dim")
    key.append(_FULL, style=LEARNT)
    key.append(" learnt ", style="dim")
    key.append(f"{_EMPTY} given, rows at the end", style="dim")
    return [*lines, key]


def fill_lines(fill: dict[str, float], *, width: int) -> list[Text]:
    """A bar for each way to fill the tensors."""
    label = max(len(FILL_NAMES[name]) for name in fill)
    lines = []
    for name, share in fill.items():
        full = round(share * width)
        line = Text(f"{FILL_NAMES[name]:<{label}} ")
        line.append(_FULL * full, style="cyan")
        line.append(_EMPTY * (width - full), style="dim")
        line.append(f" {share:.1%}")
        lines.append(line)
    return lines


def facts(measured: Statistics) -> Iterator[tuple[str, str]]:
    """What else is worth a line."""
    report, rows = measured.report, measured.counts["rows"]
    if measured.scripts:
        shares = (f"{name} {share:.1%}" for name, share in measured.scripts.items())
        yield "scripts of the letters", ", ".join(shares)
    if measured.labels:
        shown = [f"{name} {number:,}" for name, number in measured.labels.items()]
        more = f" and {len(shown) - _LABELS} more" if len(shown) > _LABELS else ""
        yield "rows of each label", ", ".join(shown[:_LABELS]) + more
    gone = ", taken out" if report.deduplicated else ""
    twice = report.duplicates
    found = f"{twice:,} ({twice / rows:.1%}){gone}" if twice else "none"
    yield "rows that stand there twice", found
    if report.eval is not None:
        origin = " held out of the training rows" if report.held_out else ""
        learnt = (
            f", {report.shared:,} training rows are among them too{gone}" if report.shared else ""
        )
        yield "evaluation rows", f"{len(report.eval):,}{origin}{learnt}"
    sources = [*report.train_sources, *report.eval_sources]
    cut, lost = (sum(getattr(s, name) for s in sources) for name in ("truncated", "end_lost"))
    if cut:
        yield "rows cut at max_length", f"{cut:,}, {lost:,} of them without their answer's end"
    if typed := sum(source.typed_rows for source in sources):
        yield "rows that spell out special tokens", f"{typed:,}; there they stay text"
