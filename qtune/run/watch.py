"""`qtune watch`: a run followed from outside by its files. No torch, and nothing is written."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from qtune.errors import ExitCode, UsageError
from qtune.run.seen import evaluation_of, step_of
from qtune.runs import past

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from qtune.run.display import Display
    from qtune.runs.past import Past

LOOK_SECONDS = 0.5
SILENT_SECONDS = 120.0
"""After so long without a word it is said that none has come."""
_OF_RECORDS = re.compile(r"step +\d+/\d+ |eval at step \d+ |warning: ")
_CODE = re.compile(r"^### qtune: .* ended with exit code (\d+)$", re.M)


class Watching(Protocol):
    """Where what is seen goes."""

    def record(self, record: Mapping[str, Any], *, old: bool) -> None:
        """A record of metrics.jsonl; `old`: it was there when the watching began."""

    def line(self, text: str, *, old: bool) -> None:
        """A line of the log."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a run ended: its state, why, the step it reached, and the exit code for it."""

    state: str
    message: str
    step: int | None
    code: int
    report: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The last line under --json."""
        told = {"state": self.state, "message": self.message, "step": self.step}
        return {"kind": "end"} | told | {"exit_code": self.code}


@dataclass
class Tail:
    """The new whole lines of a file that grows; one that was cut is read on from its end."""

    path: Path
    _place: int = field(default=0, init=False)
    _rest: bytes = field(default=b"", init=False)

    def lines(self) -> Iterator[str]:
        """Those since the last call."""
        try:
            with self.path.open("rb") as stream:
                size = stream.seek(0, 2)
                if size < self._place:  # a run that goes on takes what it does again out
                    self._place, self._rest = size, b""
                stream.seek(self._place)
                found = stream.read()
                self._place = stream.tell()
        except OSError:
            return
        *whole, self._rest = (self._rest + found).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)


def watch(folder: Path, watching: Watching, *, sleep: Callable[[float], None] = time.sleep) -> End:
    """Tell everything that a run writes until its process has ended; `UsageError` where there is
    no run."""
    require_run(folder)
    metrics, log = Tail(folder / past.METRICS), Tail(folder / past.LOG)
    old, silent = True, 0.0
    while True:
        held = past.is_held(folder)  # asked before the last look: what comes after it is seen
        seen = _tell(metrics, log, watching, old=old)
        if not held:
            return end_of(folder)
        old = False
        silent = 0.0 if seen else silent + LOOK_SECONDS
        if SILENT_SECONDS <= silent < SILENT_SECONDS + LOOK_SECONDS:
            watching.line(
                f"nothing was written for {silent:.0f} s; the process is there", old=False
            )
        sleep(LOOK_SECONDS)


def require_run(folder: Path) -> None:
    """`UsageError` unless a run is there, or a process that is about to begin one."""
    if not folder.is_dir():
        raise UsageError("no such folder", place=str(folder), hint="see qtune runs list")
    if not past.is_run(folder) and not past.is_held(folder):
        raise UsageError("not a run folder", place=str(folder), hint="see qtune runs list")


def _tell(metrics: Tail, log: Tail, watching: Watching, *, old: bool) -> bool:
    seen = False
    for line in log.lines():
        seen = True
        if not _OF_RECORDS.match(line):
            watching.line(line, old=old)
    for line in metrics.lines():
        seen = True
        record = _record(line)
        if record is not None:
            watching.record(record, old=old)
    return seen


def _record(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("kind"), str) else None


def end_of(folder: Path) -> End:
    """How a run that no process has any more came to its end."""
    files = past.Files(folder)
    found = past.look(folder, held=False)
    report = files.read(past.REPORT) if found.state == "finished" else {}
    code, message = _judged(found, _text(folder / "summary.md"))
    return End(state=found.state, message=message, step=found.step, code=code, report=report)


def _judged(found: Past, summary: str) -> tuple[int, str]:
    if found.state == "finished":
        failed = found.gates_failed
        if failed:
            gates = f"{failed} gate{'s' if failed > 1 else ''} failed"
            return int(ExitCode.CHECK_FAILED), f"finished, {gates}"
        return int(ExitCode.DONE), "finished"
    told = _CODE.search(summary)
    if found.state in ("failed", "stopped"):
        code = int(told[1]) if told else int(ExitCode.BUG)
        return code, found.reason if found.state == "stopped" else f"error: {found.reason}"
    if found.state == "damaged":
        return int(ExitCode.MODEL), found.reason
    reached = f"after step {found.step}" if found.step else "before its first step"
    message = (
        f"the process is gone {reached} without a word, as one that was killed; "
        "go on with qtune train --resume"
    )
    return int(ExitCode.RESOURCES), message


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class OnDisplay:
    """Shows a run as `qtune train` shows its own; of what is old `brief` leaves the lines away and
    all steps but the last."""

    def __init__(self, display: Display, *, total: Callable[[], int], brief: bool) -> None:
        self._display = display
        self._total = total
        self._known = 0
        self._brief = brief
        self._last: dict[str, Any] | None = None

    def record(self, record: Mapping[str, Any], *, old: bool) -> None:
        """A step, an evaluation, readings or a warning."""
        kind = record["kind"]
        if kind == "train" and old and self._brief:
            self._last = dict(record)
            return
        self._flush()
        if kind == "train":
            self._step(record)
        elif kind == "eval":
            event = evaluation_of(record)
            if event is not None:
                self._display.evaluation(event)
        elif kind == "hardware":
            self._display.hardware(_numbers(record))
        elif kind == "alert":
            self._display.alert(str(record.get("message", "")))

    def line(self, text: str, *, old: bool) -> None:
        """A line of the log."""
        if not (old and self._brief):
            self._flush()
            self._display.line(text)

    def close(self) -> None:
        """Show the last of the old steps, unless later ones were."""
        self._flush()

    def _flush(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._step(last)

    def _steps(self) -> int:
        """The plan is there once a step is; it is read once."""
        if self._known == 0:
            self._known = self._total()
        return self._known

    def _step(self, record: Mapping[str, Any]) -> None:
        event = step_of(record, total=self._steps())
        if event is not None:
            self._display.step(event)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in record.items() if isinstance(value, int | float)}


def total_steps(folder: Path) -> int:
    """How many steps the plan has; 0 while it is not there."""
    return past.look(folder).total_steps or 0
