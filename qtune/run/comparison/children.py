"""One process for each piece of work: its memory is its own, and its end is told in one object."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from qtune.errors import ExitCode, Fault
from qtune.runs.page import portable_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qtune.run.display import Display

_STEP = re.compile(r"step +([\d,]+)/([\d,]+) ")
_SAVING = 120.0  # seconds that a stopped child may take to save


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its code, its object, and its faults if it failed."""

    code: int
    told: dict[str, Any]

    @property
    def fault(self) -> Fault:
        """The first fault that it told, or the bare code."""
        faults = self.told.get("error", {}).get("faults") or [{}]
        ended = f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        told = faults[0].get
        return Fault(
            message=told("message") or ended, place=told("place") or "", hint=told("hint") or ""
        )

    @property
    def stops_all(self) -> bool:
        """Whether what stopped it concerns every other process as well."""
        return self.code in _FOR_ALL


_FOR_ALL = (
    *(ExitCode.DATA, ExitCode.OUTPUT_IN_USE, ExitCode.RESUME_REFUSED, ExitCode.TIME_LIMIT),
    *(ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED),
)


def qtune(words: Sequence[str], *, what: str, log: Path, display: Display) -> Outcome:
    """Run a verb of qtune with --json; its lines go to `log`, its steps to the display."""
    command = [sys.executable, "-m", "qtune", *words, "--json"]
    with tempfile.TemporaryFile() as out, log.open("a", encoding="utf-8") as kept:
        with child(command, out) as process:
            assert process.stderr is not None
            for line in process.stderr:
                kept.write(portable_text(line))
                step = _STEP.match(line)
                if step:
                    done, total = (int(number.replace(",", "")) for number in step.groups())
                    display.progress(what, done, total)
        out.seek(0)
        return Outcome(process.returncode, _object(out.read()))


@contextmanager
def child(command: list[str], out: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """A process of a group of its own: a signal reaches it through us, once, so that it saves."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    )
    try:
        yield process
        process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_SAVING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    finally:
        if process.stderr is not None:
            process.stderr.close()


def _object(said: bytes) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except ValueError:  # it was killed before it could say anything
        return {}
    return found if isinstance(found, dict) else {}
