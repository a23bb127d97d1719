"""Exit codes and the one error class that people see.

Every fault a person can cause is a `QtuneError`: what is wrong, where, and what to do. Anything
else that reaches the command line is a bug in qtune and exits with 1.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExitCode(IntEnum):
    """The process exit codes; the README lists them for CI authors."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    MODEL = 4
    RESOURCES = 5
    DIVERGED = 6
    OUTPUT_IN_USE = 7
    RESUME_REFUSED = 8
    CHECK_FAILED = 9
    TIME_LIMIT = 75
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


STOP_SIGNALS = {
    signal.SIGHUP: ExitCode.HANGUP,
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}
ECHO_SECONDS = 0.25
"""A signal this soon after another is no second one: timeout(1), or a launcher that passes on the
Ctrl-C of a terminal, sends it twice."""


def stop_signals() -> list[signal.Signals]:
    """Those to listen to: not HUP where it is ignored, as nohup(1) has it for its command."""
    return [
        number
        for number in STOP_SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


def first_few(names: Sequence[str], *, most: int = 3) -> str:
    """The first few names and how many more there are, for a message."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: `place` is file:line or a key path, `hint` the next step to take."""

    message: str
    place: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text} ({self.hint})" if self.hint else text


class QtuneError(Exception):
    """A fault of the input or the machine, never of qtune; carries its exit code.
    `said_elsewhere`: another process of the run says it."""

    code: ExitCode = ExitCode.BUG
    said_elsewhere: bool = False

    def __init__(self, message: str, *, place: str = "", hint: str = "") -> None:
        self.faults: tuple[Fault, ...] = (Fault(message=message, place=place, hint=hint),)
        super().__init__(str(self.faults[0]))

    @classmethod
    def of(cls, faults: list[Fault] | tuple[Fault, ...]) -> Self:
        """One error that reports several faults together."""
        error = cls(faults[0].message, place=faults[0].place, hint=faults[0].hint)
        error.faults = tuple(faults)
        error.args = ("\n".join(str(fault) for fault in faults),)
        return error


class UsageError(QtuneError):
    """A faulty command line or recipe."""

    code = ExitCode.USAGE


class DataError(QtuneError):
    """Missing, malformed or useless training or evaluation rows."""

    code = ExitCode.DATA


class ModelError(QtuneError):
    """A base model, tokenizer, adapter or checkpoint that is missing, broken or of another kind."""

    code = ExitCode.MODEL


class ResourceError(QtuneError):
    """Not enough memory, disk or device for what was asked."""

    code = ExitCode.RESOURCES


class DivergedError(QtuneError):
    """A loss or gradient that is not finite, found before the update; `rows`: of that step."""

    code = ExitCode.DIVERGED
    rows: tuple[str, ...] = ()


class OutputError(QtuneError):
    """An output folder that is in use or holds something else; nothing is ever overwritten."""

    code = ExitCode.OUTPUT_IN_USE


class ResumeError(QtuneError):
    """An unfinished run that this recipe, these data or this base would not continue."""

    code = ExitCode.RESUME_REFUSED


class CheckError(QtuneError):
    """A verification that did not hold: a merged model that differs from the trained one."""

    code = ExitCode.CHECK_FAILED
