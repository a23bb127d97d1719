"""Tasks of EleutherAI's lm-eval on a loaded model, told as our own tasks are (qtune[lm-eval])."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.errors import DataError, QtuneError, UsageError
from qtune.evaluation.decode import evaluating
from qtune.evaluation.tally import mean_tally
from qtune.recipe.files import read_text
from qtune.recipe.node import Source
from qtune.recipe.syntax import parse
from qtune.registry import nearest
from qtune.run.tasks import TaskResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtune.evaluation.tally import Tally

PLACE = "--lm-eval"


def read_harness(tasks: Sequence[str]) -> list[Any]:
    """The tasks as lm-eval has them, by name or as a YAML file of its own; `UsageError` and
    `DataError` before any weight is read."""
    if not tasks:
        return []
    if importlib.util.find_spec("lm_eval") is None:
        hint = "pip install 'qtune[lm-eval]'"
        raise UsageError("the package lm-eval is not installed", place=PLACE, hint=hint)
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    asked = [_named(task, manager) for task in tasks]
    for task, found in zip(tasks, asked, strict=True):
        try:
            _load(found, manager)
        except QtuneError:
            raise
        except Exception as error:  # data sets fail in many ways: network, names, formats
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"lm-eval cannot read {task}: {said}", place=PLACE) from error
    return asked


def measure_harness(
    asked: Sequence[Any], model: Any, tokenizer: Any, *, batch_size: int, rows: int | None
) -> dict[str, TaskResult]:
    """Every task on one model: the measures that lm-eval takes as means over its rows."""
    if not asked:
        return {}
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with evaluating(model):
        harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        found = simple_evaluate(
            model=harness, tasks=list(asked), limit=rows, log_samples=True, bootstrap_iters=0
        )
    results: Mapping[str, Mapping[str, Any]] = found["results"]
    return {
        name: TaskResult("lm-eval", len(samples), _tallies(samples, results[name]), [])
        for name, samples in found["samples"].items()
    }


def _named(task: str, manager: Any) -> Any:
    """A task's name, or the settings in a YAML file in lm-eval's own words, without its tags."""
    if task.endswith((".yaml", ".yml")):
        return parse(read_text(Path(task), name=task), _source(task)).plain()
    if task not in manager.all_tasks:
        hint = nearest(task, manager.all_tasks)
        hint = hint if hint.startswith("did you mean") else "lm-eval ls tasks"
        raise UsageError(f"lm-eval has no task {task!r}", place=PLACE, hint=hint)
    return task


def _source(task: str) -> Source:
    return Source(name=task, label=Path(task).name, folder=Path(task).parent)


def _load(task: Any, manager: Any) -> None:
    from lm_eval.tasks import get_task_dict

    get_task_dict([task], manager)


def _tallies(
    samples: Sequence[Mapping[str, Any]], aggregated: Mapping[str, Any]
) -> dict[str, Tally]:
    """The measures that are a mean over rows; others (perplexities, corpus scores) are left out."""
    found = {}
    for key, value in aggregated.items():
        name, _, _ = key.partition(",")
        if not isinstance(value, float) or name.endswith("_stderr"):
            continue
        rows = [sample.get(name) for sample in samples]
        if all(isinstance(row, int | float) for row in rows):
            tally = mean_tally([float(row) for row in rows if row is not None])
            if abs(tally.value - value) < 1e-6:
                found[name] = tally
    return found
