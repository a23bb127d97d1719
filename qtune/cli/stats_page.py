"""The numbers of `qtune data stats` as a page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtune.cli.page import page
from qtune.cli.picture import lengths_svg
from qtune.cli.stats_view import FILL_NAMES, counts_line, facts, quantile_line, source_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qtune.run.data_statistics import Statistics


def stats_page(measured: Statistics) -> str:
    """Sources, the picture of the lengths, fill and facts on one self-contained page."""
    fill_title = f"Real tokens in the tensors, {measured.micro_batch_size} rows a micro-batch"
    shares = [f"{name.removeprefix('p')}% of rows" for name in measured.quantiles]
    lengths = [[f"up to {tokens:,}" for tokens in measured.quantiles.values()]]
    body = [
        f"<h1>{escape(measured.name)}</h1>",
        f'<p class="quiet">{escape(counts_line(measured))}</p>',
        _card(
            "Sources",
            _table(("source", "format", "read", "used", "dropped"), source_rows(measured)),
        ),
        *(
            _card("Row lengths", f"<p>{quantile_line(measured)}</p>{lengths_svg(measured)}"),
            _card("Tokens in a row", _table(shares, lengths)),
            _card(fill_title, _bars(measured.fill)),
        )[: 3 if measured.fill else 0],  # all images have the same number of tokens
        _card("To know", _table((), facts(measured))),
    ]
    return page(f"{measured.name}: data", "\n".join(body))


def _card(title: str, body: str) -> str:
    return f'<div class="card"><h2>{escape(title)}</h2>{body}</div>'


def _bars(fill: dict[str, float]) -> str:
    """Each way to fill the tensors with a bar as long as its share."""
    lines = (
        f"<tr><td>{escape(FILL_NAMES[name])}</td>"
        f'<td class="n">{share:.1%}</td>'
        f'<td class="track"><div class="bar" style="width: {share:.1%}"></div></td></tr>'
        for name, share in fill.items()
    )
    return f"<table>{''.join(lines)}</table>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
