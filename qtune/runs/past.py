"""A run folder read afterwards, whatever state it is in: what is damaged is named, not raised."""

from __future__ import annotations

import fcntl
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from qtune.artefacts import read_object
from qtune.errors import ModelError
from qtune.runs.checkpoint import checkpoints, size
from qtune.runs.lock import NAME as LOCK

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["finished", "running", "stopped", "failed", "unfinished", "damaged"]
RECIPE, PLAN, REPORT, ENVIRONMENT = "recipe.yaml", "plan.json", "report.json", "env.json"
METRICS, LOG, ADAPTER = "metrics.jsonl", "log.txt", "adapter"
_ENDS: dict[str, State] = {"error:": "failed", "stopped": "stopped"}
_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class Past:
    """A run at a glance; `faults` name the files that cannot be read."""

    name: str
    path: str
    state: State
    reason: str
    step: int | None
    total_steps: int | None
    loss_first: float | None
    loss_last: float | None
    best: dict[str, Any] | None
    tokens_per_second: float | None
    gates_failed: int | None
    when: str | None
    adapter_bytes: int | None
    faults: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"faults": list(self.faults)}


class Files:
    """The files of one run folder; a fault is noted and the file counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where it is absent or damaged."""
        path = self.folder / name
        if not path.exists():
            return {}
        try:
            found: dict[str, Any] = _clean(read_object(path))
            return found
        except (ModelError, RecursionError) as error:
            said = error.faults[0].message if isinstance(error, ModelError) else "nested too deep"
            self.faults.append(f"{name}: {said}")
            return {}

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """The records of metrics.jsonl of one kind."""
        return self.by_kind().get(kind, [])

    def by_kind(self) -> dict[str, list[dict[str, Any]]]:
        """The records of metrics.jsonl; a last line cut short by a kill is no fault."""
        lines = self._text(METRICS).splitlines()
        found: dict[str, list[dict[str, Any]]] = {}
        for number, line in enumerate(lines, 1):
            try:
                record = _clean(json.loads(line))
                found.setdefault(record["kind"], []).append(record)
            except (ValueError, KeyError, TypeError, RecursionError):
                if number < len(lines):
                    self.faults.append(f"{METRICS}:{number}: not a record")
        return found

    def last_line(self) -> str:
        """The last line of the log."""
        path = self.folder / LOG
        try:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.faults.append(f"{name}: {error.strerror}")
            return ""


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, or what is left of one."""
    begun = (folder / RECIPE).exists() and (folder / PLAN).exists()
    return begun or (folder / METRICS).exists() or (folder / REPORT).exists()


def look(folder: Path, *, held: bool | None = None) -> Past:
    """A run at a glance; `held`: whether its process has it, where the caller knows better."""
    files = Files(folder)
    report, plan = files.read(REPORT), files.read(PLAN)
    trained = files.metrics("train")
    first, last = (trained[0], trained[-1]) if trained else ({}, {})
    saved = max(checkpoints(folder / "checkpoints"), default=0)
    # a finished run that was made longer is not finished again before it has written its report
    done = bool(report) and saved <= (_count(report, "steps") or saved)
    report = report if done else {}
    if done and not (folder / ADAPTER / "adapter_config.json").is_file():
        files.faults.append(f"{ADAPTER}: is not there")
    if not (folder / RECIPE).is_file():
        files.faults.append(f"{RECIPE}: is not there")
    state, reason = _state(files, done=done, held=is_held(folder) if held is None else held)
    steps = _inside(plan, "steps")
    return Past(
        name=folder.resolve().name,
        path=str(folder),
        state=state,
        reason=reason,
        step=_count(report, "steps") if done else max(_count(last, "step") or 0, saved),
        total_steps=_count(report, "steps") if done else _count(steps, "total"),
        loss_first=_number(report if done else first, "loss_first" if done else "loss"),
        loss_last=_number(report if done else last, "loss_last" if done else "loss"),
        best=_best(report),
        tokens_per_second=_number(report if done else last, "tokens_per_second"),
        gates_failed=_failed(report),
        when=_when(folder),
        adapter_bytes=size(folder / ADAPTER) if (folder / ADAPTER).is_dir() else None,
        faults=tuple(files.faults),
    )


def _state(files: Files, *, done: bool, held: bool) -> tuple[State, str]:
    if held:
        return "running", ""
    if files.faults:
        return "damaged", files.faults[0]
    if done:
        return "finished", ""
    line = files.last_line()
    for start, state in _ENDS.items():
        if line.startswith(start):
            return state, line.removeprefix("error: ")
    return "unfinished", ""


def is_held(folder: Path) -> bool:
    """Whether a process has the run's lock; looking takes it from nobody."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _when(folder: Path) -> str | None:
    """When the run last wrote something."""
    times = []
    for name in (REPORT, METRICS, LOG, RECIPE):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    if not times:
        return None
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds")


def _best(report: dict[str, Any]) -> dict[str, Any] | None:
    best = _inside(report, "best")
    value = _number(best, "value")
    metric = best.get("metric")
    if value is None or not isinstance(metric, str):
        return None
    return {"metric": metric, "step": _count(best, "step"), "value": value}


def _failed(report: dict[str, Any]) -> int | None:
    verdicts = report.get("gates")
    if not isinstance(verdicts, list) or not verdicts:
        return None
    return sum(not (isinstance(one, dict) and one.get("passed") is True) for one in verdicts)


def _clean(value: Any) -> Any:
    """The value without NaN and infinities, which JSON does not have: they count as absent."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _inside(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _number(values: dict[str, Any], key: str) -> float | None:
    """A number; anything else counts as absent."""
    found = values.get(key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _count(values: dict[str, Any], key: str) -> int | None:
    found = values.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
