"""`qtune report`: the page of a run, or of several side by side. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qtune.cli.options import AsJson
from qtune.cli.output import print_json, results
from qtune.errors import OutputError, UsageError

SIDE_BY_SIDE = Path("report.html")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the page there (a new file)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the page of a run again, or lay several side by side.

    Without -o one run's page is its own report.html, that of several report.html here.

    Examples:
      qtune report runs/first
      qtune report runs/first runs/second -o both.html
    """
    from qtune.run.pages.write import write_page, write_side_page
    from qtune.run.watch import require_run

    for run in runs:
        require_run(run)
    if len(runs) > 1 or output is not None:
        _refuse_taken(output or SIDE_BY_SIDE)
    if len(runs) == 1:
        page = write_page(runs[0], output)
    else:
        page = write_side_page(runs, output or SIDE_BY_SIDE)
    if as_json:
        print_json({"page": str(page), "bytes": page.stat().st_size, "runs": list(map(str, runs))})
    else:
        results().print(str(page), soft_wrap=True, markup=False)


def _refuse_taken(target: Path) -> None:
    if target.exists():
        raise OutputError("the file exists already", place=str(target), hint="name another with -o")
    if not target.absolute().parent.is_dir():
        raise UsageError("no such folder", place=str(target.parent))
