"""stdout carries results, stderr everything else."""

from __future__ import annotations

import json
import os
import sys
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.errors import ExitCode, Fault, QtuneError


class _Console(Console):
    """A console whose reader may leave: `| head` is no fault, and ends no training."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        drop_rest(self.file)


def drop_rest(stream: IO[str]) -> None:
    """Send what is still to come nowhere: the last flush of the process must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def results() -> Console:
    """Where results go; colours only on a terminal."""
    return _Console(soft_wrap=False, highlight=False)


def wide_results(least: int = 120) -> Console:
    """Where a table goes: as wide as the terminal, or as a line of a log may be."""
    console = results()
    if not console.is_terminal:
        console.width = max(console.width, least)
    return console


def news() -> Console:
    """Where progress, logs and errors go."""
    return _Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """The one JSON object of a command under --json."""
    print_text(json.dumps(value, indent=2, allow_nan=False))


def print_json_error(code: ExitCode, faults: Sequence[Fault]) -> None:
    """The one JSON object of a command that failed under --json; its kind is that of its code."""
    told = [
        {"message": fault.message, "place": fault.place, "hint": fault.hint} for fault in faults
    ]
    error = {"kind": code.name.lower(), "faults": told}
    print_json({"error": error, "exit_code": int(code)})


def print_text(text: str) -> None:
    """A result as it stands, on stdout."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        drop_rest(sys.stdout)


def print_error(error: QtuneError) -> None:
    """Every fault of an error, a line each, without a traceback."""
    console = news()
    for fault in error.faults:
        console.print("error:", style="bold red", end=" ")
        console.print(str(fault), markup=False, soft_wrap=True)
