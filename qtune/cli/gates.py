"""What failed gates do to a command: a line each on stderr, and exit code 9."""

from __future__ import annotations

from typing import Any

import typer

from qtune.cli.output import print_error
from qtune.errors import CheckError, Fault
from qtune.ranks import seat


def exit_by_gates(report: dict[str, Any]) -> None:
    """Leave with 9 when a gate of the report failed; the result itself stays."""
    from qtune.run.gates import verdicts_of

    failed = [verdict for verdict in verdicts_of(report) if not verdict.passed]
    if failed:
        error = CheckError.of([Fault(message=f"gate failed: {verdict}") for verdict in failed])
        if not seat().rank:  # every process of a run has the report, the first one says it
            print_error(error)
        raise typer.Exit(error.code)
