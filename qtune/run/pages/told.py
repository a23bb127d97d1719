"""All that a run folder tells, read for its page: what is absent or damaged is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.recipe.recorded import recorded
from qtune.runs import past
from qtune.runs.samples import read_samples

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.recorded import Recorded
    from qtune.runs.past import Past

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One run: at a glance, its files as objects, and the records of metrics.jsonl by kind."""

    folder: Path
    look: Past
    report: Record
    plan: Record
    environment: Record
    records: dict[str, list[Record]]
    samples: dict[int, list[Record]]
    measured: dict[str, Record]
    recipe: tuple[Recorded, ...]
    faults: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the run is called: its recipe, else its folder."""
        name = self.report.get("recipe")
        return name if isinstance(name, str) and name else self.look.name

    def series(self, kind: str, key: str, *, across: str = "step") -> tuple[list[Any], list[Any]]:
        """A number of the records of one kind, over another; records without either are left."""
        points = [
            (one[across], one[key])
            for one in self.records.get(kind, ())
            if _is_number(one.get(across)) and _is_number(one.get(key))
        ]
        return [x for x, _ in points], [y for _, y in points]

    @property
    def evaluations(self) -> list[Record]:
        """The held-out measures by step, each step once."""
        told = self.report.get("evaluations")
        found = told if isinstance(told, list) else self.records.get("eval", [])
        by_step = {
            one["step"]: {key: value for key, value in one.items() if key != "kind"}
            for one in found
            if isinstance(one, dict) and _is_number(one.get("step"))
        }
        return [by_step[step] for step in sorted(by_step)]

    @property
    def result_step(self) -> int | None:
        """The step whose weights are the result."""
        step = self.report.get("adapter_step")
        return step if isinstance(step, int) else None

    def objects(self, source: Record, key: str) -> list[Record]:
        """The objects of a list in a file."""
        found = source.get(key)
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def warnings(self) -> list[str]:
        """What was said to look after, each thing once."""
        doubts = self.report.get("doubts")
        told = [str(one) for one in doubts] if isinstance(doubts, list) else []
        told += [str(one.get("message", "")) for one in self.records.get("alert", ())]
        shrunk = self.report.get("shrunk") or self.records.get("shrink", [])
        if isinstance(shrunk, list):
            told += [_shrunk(one) for one in shrunk if isinstance(one, dict)]
        return list(dict.fromkeys(text for text in told if text))


def tell(folder: Path, *, held: bool | None = None) -> Told:
    """Read a run folder; `held`: whether its process still has it, where that is known."""
    files = past.Files(folder)
    look = past.look(folder, held=held)
    return Told(
        folder=folder,
        look=look,
        report=files.read(past.REPORT),
        plan=files.read(past.PLAN),
        environment=files.read(past.ENVIRONMENT),
        records=files.by_kind(),
        samples=read_samples(folder),
        measured={path.stem: files.read(path.name) for path in _measured(folder)},
        recipe=tuple(recorded(_text(folder / past.RECIPE))),
        faults=tuple(dict.fromkeys([*look.faults, *files.faults])),
    )


def _measured(folder: Path) -> list[Path]:
    return sorted(folder.glob("eval.json")) + sorted(folder.glob("eval-*.json"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shrunk(record: Record) -> str:
    rows, before = record.get("micro_batch_size"), record.get("before")
    return (
        f"memory ran out after step {record.get('step')}: micro-batches have {rows} rows instead "
        f"of {before} from there on"
    )


def compact(value: Any) -> str:
    """A value in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
