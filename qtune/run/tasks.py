"""Task files in a run or an evaluation: read before any weight, measured on a model, told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import data, evaluation, losses
from qtune.data.batch import filler_id
from qtune.data.rows import Encoded, RowStore
from qtune.durable import write_text
from qtune.errors import DataError, UsageError
from qtune.evaluation import questions
from qtune.evaluation.answers import Answer, Manner, Prompt, answer_all, prompts_of
from qtune.evaluation.caches import require_cache
from qtune.evaluation.choices import (
    ChoiceQuestion,
    Chosen,
    Scoring,
    choice_tallies,
    choose,
    label_tallies,
)
from qtune.evaluation.ledger import Ledger
from qtune.evaluation.sharing import BY_ONE, Together
from qtune.evaluation.texts import require, tallies
from qtune.plan import loss_chunk_size
from qtune.recipe.tasks import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from qtune.data import Rows
    from qtune.evaluation.choices import Continued
    from qtune.evaluation.tally import Tally
    from qtune.losses import CausalLoss
    from qtune.recipe.results import EvalSection
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display, Journal
    from qtune.run.prepare import Learner

BATCH_SIZE = 8
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class AskedTask:
    """A task with its questions, encoded; one of the three kinds of them."""

    name: str
    task: Task
    prompts: tuple[Prompt, ...] = ()
    choices: tuple[ChoiceQuestion, ...] = ()
    rows: Rows | None = None
    stop_ids: frozenset[int] = frozenset()

    def settings(self) -> dict[str, Any]:
        """All that its results depend on, beside the model."""
        asked: list[Any] = [[prompt.ids, prompt.references] for prompt in self.prompts]
        asked += [[[row.ids for row in one.rows], one.gold] for one in self.choices]
        manner = self.task.model_dump(include={"kind", "stop", "max_new_tokens", "cache"})
        return {"name": self.name, "asked": asked, "manner": manner}


@dataclass(frozen=True)
class TaskResult:
    """What came of a task on one model."""

    kind: str
    rows: int
    tallies: dict[str, Tally]
    records: list[dict[str, Any]] = field(repr=False)

    def figures(self) -> dict[str, Any]:
        """The measures, each with its interval."""
        figures: dict[str, Any] = {"kind": self.kind, "rows": self.rows}
        for name, tally in self.tallies.items():
            figures |= tally.figures(name)
        return figures

    def beyond(self, other: TaskResult) -> dict[str, float]:
        """This minus another model's, each with its interval and p-value."""
        figures: dict[str, float] = {}
        for name, tally in self.tallies.items():
            figures |= tally.beyond(other.tallies[name], name)
        return figures


@dataclass(frozen=True, kw_only=True)
class Means:
    """With what tasks are measured."""

    tokenizer: Any
    loss: CausalLoss
    batch_size: int
    ledger: Ledger
    display: Display | Journal
    together: Together = BY_ONE

    def known(self, side: str, task: str) -> dict[int, dict[str, Any]]:
        """The records that the first process's ledger has of a task."""
        return self.together.ranks.of_first(
            lambda: {n: _tuples(one) for n, one in self.ledger.known(side, task).items()}
        )

    def keep(self, side: str, task: str, found: Sequence[Any]) -> None:
        """All that was found of a task, by whichever process."""
        self.ledger.add(side, task, _plain(dict(enumerate(found))))


def require_measures(section: EvalSection) -> None:
    """`UsageError` unless what measures the answers to held-out rows is installed."""
    require(section.measures, place="eval.measures")
    require_cache(section.cache, place="eval.cache")


def read_tasks(paths: Sequence[str], asked: Recipe, tokenizer: Any) -> list[AskedTask]:
    """Every task with its questions; what is wrong with one is told before any weight is read."""
    names = [Path(path).stem for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two tasks are named {twice[0]}", hint="name their files apart")
    tasks = [load_task(path) for path in paths]
    for path, task in zip(paths, tasks, strict=True):
        require(task.measures if task.kind == "generate" else (), place=str(path))
        require_cache(task.cache, place=str(path))
    return [_asked(*pair, asked, tokenizer) for pair in zip(names, tasks, strict=True)]


def _asked(name: str, task: Task, asked: Recipe, tokenizer: Any) -> AskedTask:
    if task.kind in ("choices", "classify"):
        found = questions.asked_choices(task, tokenizer)
        return AskedTask(name=name, task=task, choices=tuple(found))
    if task.prompt is not None and task.kind == "generate":
        prompts = questions.asked_texts(task, tokenizer)
        return AskedTask(name=name, task=task, prompts=tuple(prompts))
    if task.prompt is not None:
        rows = _stored(questions.continued_texts(task, tokenizer))
        return AskedTask(name=name, task=task, rows=rows)
    source = task.data
    if task.same_prompt == "rows" and task.max_rows is not None:
        source = source.model_copy(update={"max_rows": task.max_rows})
    rows = data.read_eval((source,), asked, tokenizer)
    if task.kind == "loss":
        return AskedTask(name=name, task=task, rows=rows)
    answerable = evaluation.answerable(rows, len(rows))
    if not len(answerable):
        raise DataError("no row has a prompt and an answer to generate", place=task.data.path)
    prompts = questions.grouped(prompts_of(answerable, tokenizer), task)
    stop_ids = frozenset(rows.stop_ids)
    return AskedTask(name=name, task=task, prompts=tuple(prompts), stop_ids=stop_ids)


def _stored(texts: Sequence[Continued]) -> Rows:
    """Prompt and reference pairs as rows whose loss is that of the reference."""
    store = RowStore()
    for text in texts:
        file, _, number = text.place.rpartition(":")
        learnt = [place >= text.given for place in range(len(text.ids))]
        store.add(Encoded(file=file, number=int(number), ids=list(text.ids), learnt=learnt))
    return data.Rows(store, range(len(store)))


def measure(asked: AskedTask, model: nn.Module, side: str, means: Means) -> TaskResult:
    """One task on one model; `side` is what the report calls the model."""
    kinds = {"loss": _loss, "generate": _texts, "choices": _choices, "classify": _choices}
    return kinds[asked.task.kind](asked, model, side, means)


def _loss(asked: AskedTask, model: nn.Module, side: str, means: Means) -> TaskResult:
    assert asked.rows is not None
    found = evaluation.measure_loss(
        model,
        asked.rows,
        loss=means.loss,
        batch_size=means.batch_size,
        pad_id=filler_id(means.tokenizer),
        device=next(model.parameters()).device,
        on_progress=partial(means.display.progress, f"{asked.name} of the {side}"),
        together=means.together,
    )
    return TaskResult("loss", found.rows, found.tallies(), [])


def _texts(asked: AskedTask, model: nn.Module, side: str, means: Means) -> TaskResult:
    task, ledger = asked.task, means.ledger
    room = max(1, evaluation.context_length(model) - task.max_new_tokens)
    prompts = [replace(prompt, ids=prompt.ids[-room:]) for prompt in asked.prompts]
    over = sum(len(prompt.ids) > room for prompt in asked.prompts)
    _tell_cut(asked.name, over, len(prompts), means)
    found = answer_all(
        model,
        means.tokenizer,
        prompts,
        Manner(
            max_new_tokens=task.max_new_tokens,
            batch_size=means.batch_size,
            stop_ids=asked.stop_ids,
            stop_texts=task.stop,
            cache=task.cache,
        ),
        known={n: Answer(**one) for n, one in means.known(side, asked.name).items()},
        on_answers=lambda said: ledger.add(side, asked.name, _plain(said)),
        on_progress=partial(means.display.progress, f"{asked.name} of the {side}"),
        together=means.together,
    )
    means.keep(side, asked.name, found)
    measured = tallies(found, task.measures, pattern=task.pattern)
    records = with_measures(found, measured)
    return TaskResult(task.kind, len(found), measured, records)


def _choices(asked: AskedTask, model: nn.Module, side: str, means: Means) -> TaskResult:
    ledger, room = means.ledger, evaluation.context_length(model)
    over = sum(any(len(row.ids) > room for row in one.rows) for one in asked.choices)
    _tell_cut(asked.name, over, len(asked.choices), means)
    found = choose(
        model,
        asked.choices,
        Scoring(loss=means.loss, batch_size=means.batch_size, pad_id=filler_id(means.tokenizer)),
        known={n: Chosen(**one) for n, one in means.known(side, asked.name).items()},
        on_chosen=lambda some: ledger.add(side, asked.name, _plain(some)),
        on_progress=partial(means.display.progress, f"{asked.name} of the {side}"),
        together=means.together,
    )
    means.keep(side, asked.name, found)
    make = label_tallies if asked.task.kind == "classify" else choice_tallies
    records = [one.to_dict() | {"measures": one.measures()} for one in found]
    return TaskResult(asked.task.kind, len(found), make(found), records)


def _tell_cut(name: str, over: int, total: int, means: Means) -> None:
    """What does not fit is cut off at the left, as harnesses do: that costs, so it is said."""
    if over:
        what = "prompts are longer than the model's context: cut at the left"
        means.display.line(f"{name}: {over} of {total} {what}")


def with_measures(answers: Sequence[Answer], measured: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """The lines of a predictions file: each answer with every measure of its row alone."""
    by_row = {name: tally.by_row for name, tally in measured.items()}
    return [
        one.to_dict()
        | {"measures": {name: round(rows[n], _DIGITS) for name, rows in by_row.items()}}
        for n, one in enumerate(answers)
    ]


def flat(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of tasks as gates name them: TASK.MEASURE."""
    return {
        f"{name}.{measure}": value
        for name, figures in tasks.items()
        for measure, value in figures.items()
        if isinstance(value, float)
    }


def _plain(found: Mapping[int, Any]) -> dict[int, dict[str, Any]]:
    return {number: dict(vars(one)) for number, one in found.items()}


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record from JSON, whose lists were tuples."""
    return {key: tuple(one) if isinstance(one, list) else one for key, one in record.items()}


def measure_run(
    tasks: Sequence[AskedTask],
    pupil: Learner,
    asked: Recipe,
    folder: Path | None,
    journal: Journal,
    *,
    together: Together,
) -> dict[str, Any]:
    """The tasks of a finished run, on the weights that its pupil holds and on the base; for its
    report. Every answer stands in `folder`/tasks.predictions.jsonl, at the process that has it."""
    ledger = Ledger(folder, {"tasks": [task.settings() for task in tasks]})
    micro = asked.memory.micro_batch_size
    means = Means(
        tokenizer=pupil.tokenizer,
        loss=losses.CausalLoss(chunk_size=loss_chunk_size(asked)),
        batch_size=asked.eval.batch_size or (micro if micro != "auto" else BATCH_SIZE),
        ledger=ledger,
        display=journal,
        together=together,
    )
    model = pupil.base.model
    ours = {task.name: measure(task, model, "adapter", means) for task in tasks}
    with pupil.method.disabled():
        base = {task.name: measure(task, model, "base", means) for task in tasks}
    if folder is not None:
        _write(folder, {"adapter": ours, "base": base})
    ledger.remove()
    for name, result in ours.items():
        journal.line(_told(name, result, base[name]))
    return {
        "tasks": {
            "adapter": {name: result.figures() for name, result in ours.items()},
            "base": {name: result.figures() for name, result in base.items()},
            "difference": {name: result.beyond(base[name]) for name, result in ours.items()},
        }
    }


def _write(folder: Path, sides: Mapping[str, Mapping[str, TaskResult]]) -> None:
    lines = [
        json.dumps({"side": side, "task": name, **record}, ensure_ascii=False)
        for side, results in sides.items()
        for name, result in results.items()
        for record in result.records
    ]
    write_text(folder / "tasks.predictions.jsonl", "".join(f"{line}\n" for line in lines))


def _told(name: str, ours: TaskResult, base: TaskResult) -> str:
    """A task on one line: each measure before and after."""
    pairs = ((key, base.tallies[key].value, tally.value) for key, tally in ours.tallies.items())
    return f"{name}: " + ", ".join(f"{key} {was:.4g} -> {now:.4g}" for key, was, now in pairs)
