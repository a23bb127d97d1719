"""How the processes of a run ended, and what that makes of the run."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qtune.errors import STOP_SIGNALS, ExitCode, Fault
from qtune.ranks import word_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOGETHER = frozenset(
    (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.TIME_LIMIT, *STOP_SIGNALS.values())
)
"""Ends that the processes of a run agree on: who is still at work goes on, to save or to write."""


@dataclass(frozen=True)
class End:
    """A process that is over: its exit code, or the signal that killed it as a negative number.

    `forced`: we have ended it, after another one.
    """

    rank: int
    code: int
    forced: bool = False

    @property
    def agreed(self) -> bool:
        """Whether the others may go on to their own end."""
        return self.code in TOGETHER

    @property
    def fault(self) -> Fault:
        """What to say of one that a signal killed."""
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = f"signal {-self.code}"
        memory = "" if name != "SIGKILL" else ", as the system does when memory runs out"
        hint = "--resume goes on from the last checkpoint"
        return Fault(message=f"rank {self.rank} was killed by {name}{memory}", hint=hint)


def code_of(ends: Sequence[End]) -> tuple[int, Fault | None]:
    """The exit code of a run by the ends of its processes, in the order in which they came, and
    what none of them could say itself.

    The first one that failed counts; though not one that ended with 5, which is also the end of
    those who have lost another one, before one that tells more.
    """
    own = [end for end in ends if not end.forced]
    failed = [end for end in own if not end.agreed]
    for end in failed:
        if end.code < 0:
            return int(ExitCode.RESOURCES), end.fault
        if end.code != ExitCode.RESOURCES:
            return end.code, None
    if failed:
        return int(ExitCode.RESOURCES), None
    first = sorted(own, key=lambda end: end.rank)
    if not first:  # all had to be ended
        return int(ExitCode.RESOURCES), None
    return next((end.code for end in first if end.code), int(ExitCode.DONE)), None


def last_word(ends: Sequence[End], told: Path) -> Fault | None:
    """The first fault that a process left for the first one, which had no time to say it."""
    for end in ends:
        word = word_of(told, end.rank)
        if word.exists():
            fault = Fault(**json.loads(word.read_text(encoding="utf-8"))[0])
            return replace(fault, message=f"rank {end.rank}: {fault.message}")
    return None
