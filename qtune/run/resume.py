"""Going on with a run: which checkpoint, whether it may, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtune import models, optim, plan, runs
from qtune.errors import DataError, Fault, ModelError, OutputError, ResumeError, UsageError
from qtune.models.files import locate
from qtune.recipe.methods import parts_of
from qtune.recipe.unread import unread
from qtune.run import changes
from qtune.run.saving import load_progress
from qtune.run.teaching import teacher_fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.data import Prepared, Streamed
    from qtune.ranks import Ranks
    from qtune.recipe import Loaded
    from qtune.recipe.sections import Recipe
    from qtune.recipe.steps import TrainSection
    from qtune.run.display import Journal
    from qtune.run.train import Settled
    from qtune.runs import RunFolder

_LENGTHS = ("max_steps", "num_train_epochs")
PINNED = ("micro_batch_size", "activations", "loss_chunk_size")


@dataclass(frozen=True)
class Wanted:
    """What is to become of an earlier run in the output folder.

    `required`: there must be one to go on with; `allowed`: going on is fine; `changes`: keys or
    sections of the recipe that may differ from those it began with.
    """

    required: bool = False
    changes: tuple[str, ...] = ()
    allowed: bool = False

    def for_recipe(self, asked: Recipe) -> Wanted:
        """With what the recipe itself allows."""
        return replace(self, allowed=self.required or asked.checkpoint.resume == "auto")


BEGIN = Wanted()


@dataclass(frozen=True)
class Earlier:
    """The run in the output folder, and its newest whole checkpoint if there is one.

    `evaluated`: whether the evaluation after that step has been made; `report`: of a run that came
    to its end.
    """

    step: int = 0
    evaluated: bool = False
    checkpoint: Path | None = None
    facts: dict[str, Any] | None = None
    report: dict[str, Any] | None = None


def earlier(loaded: Loaded, folder: RunFolder, wanted: Wanted, journal: Journal) -> Earlier | None:
    """The run to go on with, which began with this recipe; None to begin one."""
    found = find(folder, wanted.for_recipe(loaded.recipe), journal)
    if found is not None:
        check_recipe(loaded, found, wanted, journal)
    return found


def find(folder: RunFolder, wanted: Wanted, journal: Journal) -> Earlier | None:
    """The run to go on with, None to begin one; `OutputError` when it is neither's place."""
    if not folder.holds_run():
        folder.check()
        if wanted.required:
            raise UsageError(
                "there is no run to go on with",
                place=str(folder.path),
                hint="leave --resume away to begin one",
            )
        return None
    newest = runs.newest_valid(folder.checkpoints)
    report = folder.read_report()
    if not wanted.allowed:
        step = newest.checkpoint.step if newest.checkpoint else 0
        state = "finished" if report else f"stopped after step {step}"
        longer = " and more train.max_steps" if report else ""
        raise OutputError(
            f"holds a run already, {state}",
            place=str(folder.path),
            hint=f"name another folder with -o, or go on with --resume{longer}",
        )
    if newest.skipped and newest.checkpoint is None:
        raise _nothing_whole(folder, newest.skipped)
    for name, reason in newest.skipped:
        journal.line(f"skipped {name}: {reason}")
    if newest.checkpoint is None:
        journal.line("resuming: there is no whole checkpoint yet, so the run begins again")
        return Earlier(report=report)
    found = newest.checkpoint
    journal.line(f"resuming after step {found.step} ({found.path.name})")
    evaluated = not load_progress(found.path).evaluation_due
    return Earlier(found.step, evaluated, found.path, found.facts, report)


def _nothing_whole(folder: RunFolder, skipped: tuple[tuple[str, str], ...]) -> ModelError:
    """Hours of work may lie there: whether they are given up is for a person to say."""
    *faults, last = [
        Fault(message=reason, place=f"{folder.checkpoints.name}/{name}") for name, reason in skipped
    ]
    hint = f"no checkpoint can be used; to begin again remove {folder.checkpoints}, or name another"
    return ModelError.of([*faults, replace(last, hint=f"{hint} folder with -o")])


def check_recipe(loaded: Loaded, earlier: Earlier, wanted: Wanted, journal: Journal) -> None:
    """`ResumeError` unless the recipe and the base are those that the run began with."""
    if earlier.facts is None:
        return
    section = loaded.recipe.model
    folder = locate(section.name_or_path, revision=section.revision)
    networks = {"model": models.fingerprint(folder), "teacher": teacher_fingerprint(loaded.recipe)}
    began = earlier.facts["recipe"] | {
        name: earlier.facts["contents"].get(name) for name in networks
    }
    now = changes.recipe_facts(loaded.recipe) | networks
    for key in unread(loaded.recipe):  # a run's own recipe.yaml leaves them out
        began.pop(key, None)
        now.pop(key, None)
    said = changes.compare(began, now, allowed=wanted.changes, origins=loaded.origins)
    for line in said + _other_versions(earlier.facts["environment"]["packages"]):
        journal.line(line)


def check_rows(
    prepared: Prepared | Streamed, earlier: Earlier, wanted: Wanted, journal: Journal
) -> None:
    """`ResumeError` unless the rows are those that the run began with."""
    if earlier.facts is None:
        return
    began = {key: earlier.facts["contents"][key] for key in ("data.train", "data.eval")}
    now = row_facts(prepared)
    for line in changes.compare(began, now, allowed=wanted.changes):
        journal.line(line)


def require_same_rows(prepared: Prepared | Streamed, ranks: Ranks) -> None:
    """`DataError` unless all processes of a run have encoded the same rows."""
    if strays := ranks.strays(row_facts(prepared)):
        raise DataError(
            f"process {strays[0]} has read other rows than process 0",
            place="data",
            hint="each machine needs the same files and the same tokenizer",
        )


def row_facts(prepared: Prepared | Streamed) -> dict[str, str | None]:
    """sha256 of the encoded rows, in their order."""
    held_out = prepared.eval
    return {
        "data.train": prepared.train.fingerprint,
        "data.eval": None if held_out is None else held_out.fingerprint,
    }


def facts(settled: Settled, *, base: str) -> dict[str, Any]:
    """What every checkpoint of a run says about it; `base` is the base's fingerprint."""
    return {
        "recipe": changes.recipe_facts(settled.loaded.recipe),
        "contents": row_facts(settled.prepared)
        | {"model": base, "teacher": teacher_fingerprint(settled.asked)},
        "plan": {key: getattr(settled.plan, key) for key in PINNED},
        "processes": settled.ranks.size,
        "trainable_parameters": settled.plan.trainable_parameters,
        "environment": runs.environment(),
    }


def pinned(asked: Recipe, earlier: Earlier | None, *, processes: int = 1) -> Recipe:
    """The recipe with what the run did last: another micro-batch, chosen for the memory of this
    hour, would round otherwise, and one that memory made smaller would fail again. A key that is
    another one now is taken as it is, and another number of processes is planned anew."""
    if earlier is None or earlier.facts is None:
        return asked
    if earlier.facts.get("processes", 1) != processes:
        return asked
    began = earlier.facts["recipe"]
    chosen = {
        key: value
        for key, value in earlier.facts["plan"].items()
        if getattr(asked.memory, key) in ("auto", began.get(f"memory.{key}"))
    }
    return asked.model_copy(update={"memory": asked.memory.model_copy(update=chosen)})


def refuse_shorter(earlier: Earlier | None, total: int) -> None:
    """`UsageError` when the run has done more steps than are asked for now."""
    if earlier is not None and earlier.step > total:
        raise UsageError(
            f"the run has done {earlier.step} steps already, {total} are asked for",
            place="train",
            hint="set train.max_steps to at least that, or name another folder with -o",
        )


def check_schedule(asked: Recipe, rows: int, earlier: Earlier, wanted: Wanted) -> None:
    """`ResumeError` where another number of steps would move the learning rate of the next one, or
    AdaLoRA's budget."""
    began = earlier.facts["recipe"] if earlier.facts else {}
    now = asked.train
    before = {key: began.get(f"train.{key}", getattr(now, key)) for key in _LENGTHS}
    changed = [f"train.{key}" for key in _LENGTHS if before[key] != getattr(now, key)]
    if not changed or any(changes.within(key, wanted.changes) for key in changed):
        return
    old = _learning_rate(asked, now.model_copy(update=before), rows, earlier.step)
    new = _learning_rate(asked, now, rows, earlier.step)
    moved = f"step {earlier.step + 1} would have a learning rate of {new:.3g}, not {old:.3g}"
    if old == new:
        moved = "AdaLoRA's budget of ranks is laid out over all of them"
    if old != new or any(part.name == "adalora" for part in parts_of(asked.method)):
        raise ResumeError(
            f"another number of steps is another schedule: {moved}",
            place=changed[0],
            hint=f"begin anew with -o, or go on nevertheless: --allow-change {changed[0]}",
        )


def _learning_rate(asked: Recipe, train: TrainSection, rows: int, step: int) -> float:
    """That of the step after `step` steps, in a run of this length."""
    steps = plan.schedule(asked.model_copy(update={"train": train}), rows)
    factor = optim.schedule(asked.optim, total_steps=steps.total, warmup_steps=steps.warmup)
    return asked.optim.learning_rate * factor(step)


def _other_versions(before: dict[str, str]) -> list[str]:
    """A line for each package that is another version now: equal bits are not promised then."""
    now = runs.environment()["packages"]
    return [
        f"{name} was {before.get(name)}, is {version}: the rest may round otherwise"
        for name, version in now.items()
        if before.get(name) != version
    ]


def finished(earlier: Earlier | None, total: int) -> dict[str, Any] | None:
    """The report of a run that has done all its steps already."""
    report = earlier.report if earlier else None
    return report if report is not None and report["steps"] >= total else None
