"""`qtune runs`: the runs of a folder, one run in full, and how two runs differ. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.errors import QtuneError, UsageError
from qtune.recipe import leaves
from qtune.runs import past
from qtune.runs.checkpoint import checkpoints, size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.recipe.sections import Recipe
    from qtune.runs.past import Files

ESSENTIALS = (
    *("model.name_or_path", "quantization.bits", "method.name", "method.rank", "method.alpha"),
    *("data.max_length", "optim.name", "optim.learning_rate", "optim.lr_scheduler_type"),
    *("train.batch_size", "train.num_train_epochs", "train.max_steps", "train.seed"),
)
PLANNED = (
    *("micro_batch_size", "activations", "base", "dequantized_layers", "loss_chunk_size"),
    *("optimizer", "device_bytes"),
)
MEASURES = (
    *("steps", "tokens", "training_seconds", "seconds", "tokens_per_second"),
    *("loss_first", "loss_last", "trainable_parameters"),
)


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """Every run directly below a folder, the latest last; or the one that the folder is."""
    if not folder.is_dir():
        raise UsageError("no such folder", place=str(folder), hint="name one that holds runs")
    if past.is_run(folder):
        return [past.look(folder).to_dict()]
    found = [past.look(path) for path in folder.iterdir() if path.is_dir() and past.is_run(path)]
    return [one.to_dict() for one in sorted(found, key=lambda one: (one.when or "", one.name))]


def show_run(folder: Path) -> dict[str, Any]:
    """One run: its state, recipe, plan, results and checkpoints."""
    _require_run(folder)
    files = past.Files(folder)
    asked = _recipe(files)
    values = dict(leaves(asked)) if asked else {}
    plan, report = files.read(past.PLAN), files.read(past.REPORT)
    shown = past.look(folder)
    return shown.to_dict() | {
        "recipe": {key: _plain(values[key]) for key in ESSENTIALS if key in values},
        "plan": {key: plan.get(key) for key in PLANNED if key in plan},
        "memory": _memory(report),
        "shrunk": _records(report.get("shrunk", files.metrics("shrink"))),
        "evaluations": _evaluations(files, report),
        "gates": report.get("gates", []),
        "checkpoints": [
            {"step": step, "bytes": size(path)}
            for step, path in sorted(checkpoints(folder / "checkpoints").items())
        ],
        "environment": files.read(past.ENVIRONMENT),
        "faults": _united(shown.faults, files.faults),
    }


def diff_runs(one: Path, other: Path) -> dict[str, Any]:
    """How two runs differ: keys of the recipe, versions, and their measures side by side."""
    for folder in (one, other):
        _require_run(folder)
    sides = [past.Files(one), past.Files(other)]
    recipes = [dict(_values(files)) for files in sides]
    places = [dict(_versions(files)) for files in sides]
    measures = [dict(_measures(files)) for files in sides]
    return {
        "runs": [str(one), str(other)],
        "recipe": _differences(*recipes) if all(recipes) else {},
        "versions": _differences(*places),
        "measures": {key: [side.get(key) for side in measures] for key in _keys(*measures)},
        "faults": {str(files.folder): files.faults for files in sides if files.faults},
    }


def _require_run(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError("no such folder", place=str(folder))
    if not past.is_run(folder):
        raise UsageError("not a run folder", place=str(folder), hint="see qtune runs list")


def _recipe(files: Files) -> Recipe | None:
    if not (files.folder / past.RECIPE).is_file():
        files.faults.append(f"{past.RECIPE}: is not there")
        return None
    try:
        return recipe.load(files.folder / past.RECIPE).recipe
    except QtuneError as error:
        files.faults.append(f"{past.RECIPE}: {error.faults[0].message}")
        return None


def _values(files: Files) -> Iterator[tuple[str, Any]]:
    asked = _recipe(files)
    for key, value in leaves(asked) if asked else ():
        if key != "train.output_dir" and not key.startswith("pins."):
            yield key, _plain(value)


def _versions(files: Files) -> Iterator[tuple[str, Any]]:
    for key, value in files.read(past.ENVIRONMENT).items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield key, value


def _measures(files: Files) -> Iterator[tuple[str, Any]]:
    """Numbers of the report, and the held-out ones of the step whose weights are the result."""
    report = files.read(past.REPORT)
    for key in MEASURES:
        if isinstance(report.get(key), int | float):
            yield key, report[key]
    memory = report.get("memory")
    if isinstance(memory, dict) and isinstance(memory.get("measured_peak_bytes"), int):
        yield "measured_peak_bytes", memory["measured_peak_bytes"]
    evaluations = _evaluations(files, report)
    result = [one for one in evaluations if one.get("step") == report.get("adapter_step")]
    for record in result or evaluations[-1:]:
        yield from ((f"held-out {key}", value) for key, value in record.items())


def _evaluations(files: Files, report: dict[str, Any]) -> list[dict[str, Any]]:
    """The held-out measures: of the report, or of a run without one as far as it came."""
    told = report.get("evaluations")
    return _records(told if isinstance(told, list) else files.metrics("eval"))


def _records(told: Any) -> list[dict[str, Any]]:
    records = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return [{key: v for key, v in record.items() if key != "kind"} for record in records]


def _memory(report: dict[str, Any]) -> dict[str, Any]:
    """Planned against measured bytes, as far as the report tells them."""
    memory = report.get("memory")
    figures = memory if isinstance(memory, dict) else {}
    return {key: value for key, value in figures.items() if isinstance(value, int | float)}


def _differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        key: [one.get(key), other.get(key)]
        for key in _keys(one, other)
        if one.get(key) != other.get(key)
    }


def _keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys([*one, *other]))


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _united(*lists: Any) -> list[str]:
    return list(dict.fromkeys(text for faults in lists for text in faults))
