"""`qtune eval`: loss, perplexity and answers, with the adapter and without it, side by side."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import data, evaluation, recipe
from qtune.durable import require_writable, write_json, write_text
from qtune.errors import DataError, OutputError, UsageError
from qtune.recipe.inputs import DataSection, SourceSection
from qtune.recipe.sections import Recipe
from qtune.run import gates
from qtune.run.bench import Bench, Held, LabelBench, Limits
from qtune.run.columns import beside, comparisons, kept, names
from qtune.run.harness import read_harness
from qtune.run.positions import too_long
from qtune.run.reading import load_reader
from qtune.run.subject import load, refuse_overrides, resolve, working_device
from qtune.run.tasks import read_tasks, require_measures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data import Rows
    from qtune.run.display import Display
    from qtune.run.subject import Subject

RECIPE_ENDINGS = (".yaml", ".yml")


_RECIPES = Limits()


def evaluate(
    thing: str,
    against: str | None = None,
    *,
    base: str | None = None,
    overrides: Sequence[str] = (),
    limits: Limits = _RECIPES,
    output: Path | None = None,
    display: Display,
) -> dict[str, Any]:
    """Measure `thing` on the held-out rows of its run, of a recipe, or of a data file."""
    started = time.perf_counter()
    by_recipe = against is not None and _is_recipe(against)
    subject = resolve(thing, base=base, overrides=overrides)
    if not by_recipe:
        refuse_overrides(subject, overrides)
    asked = _for_task(
        _recipe(subject, against, overrides, tasks=bool(limits.tasks or limits.harness)), subject
    )
    if by_recipe:
        subject = _quantized_like(subject, asked, overrides)
    columns = [subject, *beside(subject, limits, display)]
    _refuse_unmeasurable(subject, asked, limits)
    target = _report_path(subject, output)
    tokenizer = load_reader(subject.model)
    held = _held(subject, asked, against, limits, tokenizer, display)
    ledger = kept(target, columns, held, display)

    kind = LabelBench if asked.model.task == "classification" else Bench
    bench = kind(asked, tokenizer, held, limits, ledger, display)
    sides: dict[str, Any] = {}
    for name, column in zip(("model", *names(limits)), columns, strict=True):
        progress = partial(display.progress, "loading")
        loaded = load(column, device=working_device(), on_progress=progress)
        sides |= bench.measure(loaded, name)
        del loaded  # one model in memory at a time
    report = {
        "thing": subject.name,
        "kind": subject.kind,
        "base_model": subject.base_name,
        "rows": 0 if held.rows is None else len(held.rows),
        **{name: side.figures() for name, side in sides.items()},
    }
    if "adapter" in sides:
        report["difference"] = sides["adapter"].against(sides["base"])
    report |= comparisons(sides)
    report["seconds"] = round(time.perf_counter() - started, 3)
    if limits.gates:
        report |= gates.judge_eval(asked.gates, report)
    if target is not None:
        _write(target, report, sides, display)
        ledger.remove()
    return report


def _refuse_unmeasurable(subject: Subject, asked: Recipe, limits: Limits) -> None:
    """`UsageError` for what this model cannot be asked, and for gates that cannot be judged."""
    count = _answers(asked, limits)
    if asked.model.task == "classification":
        if count:
            raise UsageError("a classification writes no answers", place="--generate")
        if limits.tasks or limits.harness:
            raise UsageError("a classification is asked no tasks", place="--task")
    if count:
        require_measures(asked.eval)
    if limits.gates:
        paired = subject.adapter is not None
        gates.require_judgeable(asked.gates, answers=count > 0, paired=paired)


def _answers(asked: Recipe, limits: Limits) -> int:
    return asked.eval.generate_rows if limits.generate is None else limits.generate


def _held(
    subject: Subject,
    asked: Recipe,
    against: str | None,
    limits: Limits,
    tokenizer: Any,
    display: Display,
) -> Held:
    """All that is asked; tasks named on the command line are all, unless rows are named too."""
    own = () if against is not None or limits.harness else asked.eval.tasks
    paths = limits.tasks or own
    tasks = read_tasks(paths, asked, tokenizer)
    harness = read_harness(limits.harness)
    nothing = not asked.data.eval and not asked.data.val_size
    if against is None and (limits.tasks or limits.harness or (tasks and nothing)):
        return Held(rows=None, answered=None, tasks=tasks, harness=harness)
    rows = held_out(subject, asked, against, tokenizer, display)[: limits.rows]
    for fault in too_long(asked.model_copy(update={"model": subject.model}), rows):
        display.line(f"warning: {fault}")
    count = _answers(asked, limits)
    answered = evaluation.answerable(rows, count)
    if count and not len(answered):
        raise DataError(
            "no row has a prompt and an answer to generate", hint="leave --generate out"
        )
    answered_rows = answered if count else None
    return Held(rows=rows, answered=answered_rows, tasks=tasks, harness=harness)


def held_out(
    subject: Subject, asked: Recipe, against: str | None, tokenizer: Any, display: Display
) -> Rows:
    """The rows to measure on: those named, or those that the run kept apart."""
    if against is not None and not _is_recipe(against):
        sources: tuple[SourceSection, ...] = asked.data.eval
    elif asked.data.eval:
        sources = asked.data.eval
    elif asked.data.val_size:
        prepared = data.prepare(
            asked, tokenizer, on_progress=partial(display.progress, "tokenising")
        )
        prepared.report.refuse_judged()
        assert prepared.eval is not None
        return prepared.eval
    else:
        raise DataError(
            "nothing was held out: the recipe has neither data.eval nor data.val_size",
            hint=f"name a data file: qtune eval {subject.name} FILE",
        )
    return data.read_eval(sources, asked, tokenizer)


def _for_task(asked: Recipe, subject: Subject) -> Recipe:
    """The settings with the task and the labels of what is measured."""
    task = {"task": subject.model.task, "labels": subject.model.labels}
    return asked.model_copy(update={"model": asked.model.model_copy(update=task)})


def _recipe(
    subject: Subject, against: str | None, overrides: Sequence[str], *, tasks: bool
) -> Recipe:
    """The settings of the evaluation: of the recipe named, of the run, or the defaults."""
    if against is not None and _is_recipe(against):
        return recipe.load(against, overrides).recipe
    if against is None:
        if subject.recipe is None and tasks:
            return _defaults(subject, SourceSection(path="-"))
        if subject.recipe is None:
            raise UsageError(
                f"{subject.name} has no recipe, so there are no rows to measure it on",
                hint="add a recipe or a data file after it, or --task FILE",
            )
        return subject.recipe
    source = SourceSection(path=_named(against))
    if subject.recipe is None:
        return _defaults(subject, source)
    settings = _reading_like(subject.recipe, source)
    section = subject.recipe.data.model_copy(update={"eval": (settings,)})
    return subject.recipe.model_copy(update={"data": section})


def _defaults(subject: Subject, source: SourceSection) -> Recipe:
    """The settings of a model that has no recipe."""
    return Recipe(
        model=subject.model,
        quantization=subject.quantization,
        data=DataSection(train=(source,), eval=(source,)),
    )


def _quantized_like(subject: Subject, asked: Recipe, overrides: Sequence[str]) -> Subject:
    """An adapter without a run is loaded as the recipe says; a model only if --set says so."""
    told = any(override.startswith("quantization.") for override in overrides)
    if subject.recipe is None and (subject.kind == "adapter" or told):
        return replace(subject, quantization=asked.quantization)
    return subject


def _reading_like(known: Recipe, source: SourceSection) -> SourceSection:
    """Read another file as the run's own files are read: format, columns, prompt template."""
    example = (*known.data.eval, *known.data.train)[0]
    return example.model_copy(update={"path": source.path, "max_rows": None})


def _named(against: str) -> str:
    """A local file by its full path, anything else as a hub id."""
    path = Path(against).expanduser()
    return str(path.resolve()) if path.exists() else against


def _is_recipe(against: str) -> bool:
    return Path(against).suffix in RECIPE_ENDINGS or ("/" not in against and "." not in against)


def _report_path(subject: Subject, output: Path | None) -> Path | None:
    """Where the report goes: the file asked for, or the next free eval.json of the run."""
    if output is not None:
        if output.exists():
            raise OutputError("the file exists already", place=str(output), hint="name another")
        if not output.parent.is_dir():
            raise UsageError("no such folder", place=str(output.parent))
        require_writable(output)
        return output
    if subject.kind != "run" or subject.run is None:
        return None
    number = 1
    while (path := subject.run / f"eval{f'-{number}' if number > 1 else ''}.json").exists():
        number += 1
    require_writable(path)
    return path


def _write(target: Path, report: dict[str, Any], sides: dict[str, Any], display: Display) -> None:
    """The report, and beside it every answer as a line of JSON."""
    lines = [
        json.dumps({"side": name, **record}, ensure_ascii=False)
        for name, side in sides.items()
        for record in side.records()
    ]
    answers = target.with_suffix(".predictions.jsonl")
    if lines:
        write_text(answers, "\n".join(lines) + "\n")
    try:
        write_json(target, report)
    except OSError:
        answers.unlink(missing_ok=True)  # no answers without their report
        raise
    if "gates" in report:
        write_text(target.with_suffix(".junit.xml"), gates.eval_junit(report))
    display.line(f"written to {target}")
