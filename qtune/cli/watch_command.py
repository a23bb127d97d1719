"""`qtune watch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.options import Quietly
from qtune.cli.output import news, print_text, results
from qtune.cli.screen import showing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.run.watch import End


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Every record as a line of JSON, how it ended last.")
    ] = False,
    quiet: Quietly = False,
) -> None:
    """Follow a run from another terminal, until it has ended.

    It only reads; INT ends the watching, not the run. A finished run is shown as it ended.
    Exit codes: those of the run; 5 when its process is gone without a word.

    Examples:
      qtune watch runs/first
      qtune watch runs/first --json | jq .loss
    """
    from qtune.run.watch import watch as follow

    if as_json:
        end = follow(run, _Lines())
        print_text(json.dumps(end.to_dict(), allow_nan=False))
        raise typer.Exit(end.code)
    from qtune.run.watch import OnDisplay, require_run, total_steps

    require_run(run)
    with showing(f"qtune watch {run.resolve().name}", quiet=quiet) as display:
        shown = OnDisplay(display, total=lambda: total_steps(run), brief=not news().is_terminal)
        end = follow(run, shown)
        shown.close()
    _show(run, end)
    raise typer.Exit(end.code)


class _Lines:
    """Records and lines of the log as they come, a line of JSON each."""

    def record(self, record: Mapping[str, Any], *, old: bool) -> None:  # noqa: ARG002
        print_text(json.dumps(record))

    def line(self, text: str, *, old: bool) -> None:  # noqa: ARG002
        print_text(json.dumps({"kind": "log", "text": text}))


def _show(run: Path, end: End) -> None:
    """What came of it: a line, then of a finished run what its own terminal told."""
    from qtune.cli.train_command import held_out
    from qtune.runs.verdict import kept_verdicts

    console = results()
    style = {"finished": "green", "stopped": "yellow"}.get(end.state, "red")
    console.print(end.message, style="red" if end.code else style, markup=False, soft_wrap=True)
    report = end.report
    if report.get("evaluations") and isinstance(report.get("best"), dict):
        console.print(held_out(report))
    for verdict in kept_verdicts(report.get("gates")):
        word = "held" if verdict.passed else "FAILED"
        console.print(f"{verdict}: {word}", markup=False, soft_wrap=True)
    if "adapter_step" in report:
        adapter = f"adapter: {run}/adapter (step {report['adapter_step']})"
        console.print(adapter, soft_wrap=True, markup=False)
