"""stdout carries results, stderr everything else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from qtune.errors import QtuneError


def results() -> Console:
    """Where results go; colours only on a terminal."""
    return Console(soft_wrap=False, highlight=False)


def news() -> Console:
    """Where progress, logs and errors go."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """The one JSON object of a command under --json."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_error(error: QtuneError) -> None:
    """Every fault of an error, a line each, without a traceback."""
    console = news()
    for fault in error.faults:
        console.print("error:", style="bold red", end=" ")
        console.print(str(fault), markup=False, soft_wrap=True)
