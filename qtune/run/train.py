"""`qtune train`: from a recipe to an adapter, in one straight line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune import evaluation, losses, optim, plan, recipe, runs, training
from qtune.data.batch import filler_id
from qtune.data.feed import make_feed
from qtune.run.display import Journal
from qtune.run.follow import Follower
from qtune.run.prepare import decide, learner, plan_line, read_rows, run_folder
from qtune.run.report import train_report
from qtune.run.trackers import accelerator, flat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtune.data import Prepared
    from qtune.plan import Plan
    from qtune.recipe import Loaded
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display
    from qtune.run.prepare import Learner
    from qtune.training.loop import Measures


def train(
    path: str | Path, *, overrides: Sequence[str] = (), display: Display
) -> tuple[dict[str, Any], int]:
    """Run a recipe; returns its report and the exit code (0, or 128 + signal when stopped)."""
    started = time.perf_counter()
    journal = Journal(display)
    loaded = recipe.load(path, overrides)
    asked = loaded.recipe
    folder = run_folder(loaded)
    folder.check()
    decided = decide(asked)
    tracker = accelerator(asked, decided, folder.path)
    tokenizer, prepared = read_rows(asked, journal)
    decided = replace(decided, steps=plan.schedule(asked, len(prepared.train)))
    journal.line(plan_line(asked, decided))

    pupil = learner(asked, decided, tokenizer, device=tracker.device, journal=journal)
    folder.create(
        recipe_yaml=_without_folder(loaded, folder.path),
        plan=decided.to_dict(),
        env=runs.environment(),
    )
    journal.write_to(folder.log)
    tracker.init_trackers("qtune", config=flat(asked))
    follower = Follower(asked, folder=folder, journal=journal, tracker=tracker, save=pupil.save)
    job = make_job(asked, decided, pupil, prepared, journal)
    with folder.writing(), training.stop_on_signals() as stop, journal.keeping_errors():
        follower.follow(training.fit(job), stop)
    tracker.end_training()

    report = train_report(loaded, decided, pupil, prepared, follower)
    report["seconds"] = round(time.perf_counter() - started, 3)
    # where it lies is for the caller; the folder itself may move
    place = {"folder": str(folder.path)}
    if stop.code is not None:
        journal.line(_stopped(folder, follower.step))
        return report | place, int(stop.code)
    best = follower.best.step if asked.checkpoint.final == "best" else None
    report["adapter_step"] = best or follower.step
    with folder.writing():
        folder.publish(report["adapter_step"])
        folder.write_report(report)
    journal.line(f"adapter of step {report['adapter_step']} in {folder.path.name}/adapter")
    return report | place, 0


def _stopped(folder: runs.RunFolder, step: int) -> str:
    if not step:
        return "stopped before the first step; there are no weights to keep"
    saved = folder.checkpoint(step).relative_to(folder.path.parent)
    return f"stopped after step {step}; its weights are in {saved}"


def make_job(
    asked: Recipe, decided: Plan, pupil: Learner, prepared: Prepared, journal: Journal
) -> training.Job:
    """Loss, optimizer and schedule around a learner and its rows."""
    steps = decided.steps
    assert steps is not None
    groups = pupil.method.param_groups(
        learning_rate=asked.optim.learning_rate, weight_decay=asked.optim.weight_decay
    )
    return training.Job(
        model=pupil.base.model,
        method=pupil.method,
        loss=losses.make(asked.loss, chunk_size=decided.loss_chunk_size),
        optimizer=optim.make(asked.optim, groups),
        schedule=optim.schedule(asked.optim, total_steps=steps.total, warmup_steps=steps.warmup),
        feed=make_feed(
            asked,
            prepared.train,
            micro_batch_size=decided.micro_batch_size,
            pad_id=filler_id(pupil.tokenizer),
        ),
        total_steps=steps.total,
        steps_per_epoch=steps.per_epoch,
        max_grad_norm=asked.optim.max_grad_norm,
        evaluate=_evaluation(asked, decided, pupil, prepared, journal),
        evaluate_at_start=asked.eval.at_start,
        evaluate_every=asked.eval.steps,
    )


def _without_folder(loaded: Loaded, folder: Path) -> str:
    """The recipe to keep, without its output folder: run again, it must not meet its results."""
    place = "train.output_dir"
    train_section = loaded.recipe.train.model_copy(update={"output_dir": None})
    kept = loaded.recipe.model_copy(update={"train": train_section})
    origins = {key: origin for key, origin in loaded.origins.items() if key != place}
    return recipe.to_yaml(kept, relative_to=folder, origins=origins)


def _evaluation(
    asked: Recipe, decided: Plan, pupil: Learner, prepared: Prepared, journal: Journal
) -> Callable[[], Measures] | None:
    rows = prepared.eval
    if rows is None:
        return None

    def evaluate() -> Measures:
        return evaluation.evaluate(
            pupil.base.model,
            pupil.tokenizer,
            rows,
            asked.eval,
            loss=losses.CausalLoss(chunk_size=decided.loss_chunk_size),
            batch_size=asked.eval.batch_size or decided.micro_batch_size,
            on_progress=journal.progress,
        )

    return evaluate
