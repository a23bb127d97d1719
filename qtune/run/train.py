"""`qtune train`: from a recipe to an adapter, in one straight line."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtune import losses, optim, plan, recipe, runs, training
from qtune.data.batch import filler_id
from qtune.data.dealing import Hand
from qtune.data.feed import Layout, make_feed
from qtune.data.lessons import Taught
from qtune.data.rounding import Rounded
from qtune.errors import DivergedError, ExitCode
from qtune.oom import LOADING, OutOfMemory, during
from qtune.ranks import ALONE, joined, seat
from qtune.run import gates, pins, resume
from qtune.run.conclusion import conclude
from qtune.run.display import Journal, Quiet
from qtune.run.exhausted import advise
from qtune.run.follow import Clock, Follower, Outlets
from qtune.run.held_out import HeldOut
from qtune.run.judged_again import judge_again
from qtune.run.labels import named
from qtune.run.memory import forget_peak
from qtune.run.monitoring.begin import monitor
from qtune.run.monitoring.sampler import Sampler
from qtune.run.own_recipe import own_recipe
from qtune.run.pages.write import leaving_page
from qtune.run.parts import kept_bytes
from qtune.run.prepare import decide, learner, plan_line, read_rows, run_folder
from qtune.run.profile import Profile
from qtune.run.saving import Saver, load_into, load_progress
from qtune.run.tasks import read_tasks, require_measures
from qtune.run.teaching import open_lessons
from qtune.run.trackers import accelerator, flat
from qtune.runs.onlooker import Onlooker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from qtune.data import Prepared, Streamed
    from qtune.data.lessons import Lessons
    from qtune.plan import Plan
    from qtune.ranks import Ranks
    from qtune.recipe import Loaded
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display
    from qtune.run.prepare import Learner
    from qtune.run.resume import Earlier, Wanted
    from qtune.run.tasks import AskedTask
    from qtune.runs import RunFolder
    from qtune.training import Progress, StopRequest


@dataclass(frozen=True, kw_only=True)
class Settled:
    """All that is known before any weight is read; the same for all `ranks`."""

    ranks: Ranks
    loaded: Loaded
    asked: Recipe
    plan: Plan
    folder: RunFolder
    earlier: Earlier | None
    tracker: Accelerator
    tokenizer: Any
    prepared: Prepared | Streamed
    tasks: list[AskedTask]
    total_steps: int
    lessons: Lessons | None = None
    """What a teacher wrote of the rows."""


def train(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    wanted: Wanted = resume.BEGIN,
    display: Display,
) -> tuple[dict[str, Any], int]:
    """Run a recipe, or go on with its run; returns the report and the exit code (0, 75 when its
    time was up, 128 + signal when stopped)."""
    started = time.perf_counter()
    with joined(seat(), display.line) as ranks:
        loaded = named(recipe.load(path, overrides))
        journal = Journal(display if ranks.first else Quiet())
        folder = run_folder(loaded) if ranks.first else Onlooker(run_folder(loaded).path)
        with folder.held():
            settled = settle(loaded, folder, wanted, journal, ranks)
            done = resume.finished(settled.earlier, settled.total_steps)
            if done is None:
                report, code = _train(settled, journal, started=started)
            else:
                journal.line(f"all {settled.total_steps} steps are done already")
                report, code = ranks.of_first(lambda: judge_again(settled, done, journal))
        # where it lies is for the caller; the folder itself may move
        return report | {"folder": str(folder.path)}, int(code)


def _train(settled: Settled, journal: Journal, *, started: float) -> tuple[dict[str, Any], int]:
    """All that needs weights; every process has the first one's report and code."""
    folder, ranks = settled.folder, settled.ranks
    pupil = loaded_learner(settled, journal)
    _open(settled)
    settled.tracker.init_trackers("qtune", config=flat(settled.asked))
    with ExitStack() as leaving:
        if ranks.first:
            journal.write_to(folder.log)
            leaving.enter_context(leaving_page(folder.path, journal.line))
            leaving.enter_context(gates.telling_failure(folder.path, settled.loaded.name))
        with (
            folder.writing(),
            journal.keeping_errors(),
            training.stop_on_signals() as stop,
            ranks.noticing(),
        ):
            if ranks.first:
                pins.write_lock(
                    folder.path,
                    settled.asked,
                    settled.plan,
                    settled.prepared,
                    pupil.base.fingerprint,
                )
            progress, code = learn(settled, pupil, journal, stop, started=started)
        done = conclude(settled, pupil, progress, code, journal, started=started)
        settled.tracker.end_training()  # which parts the processes, too
        return done


def settle(
    loaded: Loaded, folder: RunFolder, wanted: Wanted, journal: Journal, ranks: Ranks = ALONE
) -> Settled:
    """Recipe, plan, rows and what is there already: whatever can be refused, before weights."""
    earlier = ranks.of_first(lambda: resume.earlier(loaded, folder, wanted, journal))
    asked = resume.pinned(loaded.recipe, earlier, processes=ranks.size)
    decided = ranks.of_first(lambda: decide(asked, ranks.seat))
    tracker = accelerator(asked, decided, folder.path)
    if ranks.first:
        pins.check_inputs(asked, journal)
    with ranks.one_before_the_rest():
        tokenizer, prepared = read_rows(asked, journal)
    resume.require_same_rows(prepared, ranks)
    if asked.eval.generate_rows:
        require_measures(asked.eval)
    tasks = read_tasks(asked.eval.tasks, asked, tokenizer)
    if ranks.first:
        pins.check_rows(asked, prepared)
    lessons = open_lessons(asked, tokenizer, prepared.train, journal)
    seen = getattr(prepared.train, "pictures", None)
    steps = plan.schedule(asked, len(prepared.train), image_tokens=seen.tokens if seen else 0)
    decided = replace(decided, steps=steps)
    if earlier is not None:
        resume.check_rows(prepared, earlier, wanted, journal)
        resume.refuse_shorter(earlier, steps.total)
        resume.check_schedule(asked, len(prepared.train), earlier, wanted)
    require_disk(folder, asked, decided)
    journal.line(plan_line(asked, decided))
    return Settled(
        ranks=ranks,
        loaded=loaded,
        asked=asked,
        plan=decided,
        folder=folder,
        earlier=earlier,
        tracker=tracker,
        tokenizer=tokenizer,
        prepared=prepared,
        tasks=tasks,
        total_steps=steps.total,
        lessons=lessons,
    )


def loaded_learner(settled: Settled, journal: Journal) -> Learner:
    """The learner of a run; `ResourceError` says what would help where there is no memory."""
    asked, decided = settled.asked, settled.plan
    try:
        with during(LOADING):
            device = settled.tracker.device
            return learner(
                asked,
                decided,
                settled.tokenizer,
                device=device,
                journal=journal,
                ranks=settled.ranks,
            )
    except OutOfMemory as error:
        raise advise(error, asked, decided) from error


def require_disk(folder: RunFolder, asked: Recipe, decided: Plan) -> None:
    """`ResourceError` unless there is room for the newest checkpoints, the best one and the
    result."""
    kept = asked.checkpoint.keep + 1
    sizes = {"checkpoint": decided.checkpoint_bytes, "adapter": decided.adapter_bytes}
    folder.require_space(runs.space_needed(**sizes, kept=kept))


def _open(settled: Settled) -> None:
    """Write what was asked and decided into the run folder, a new one or the earlier run's."""
    folder, earlier = settled.folder, settled.earlier
    write = folder.create if earlier is None else folder.reopen
    write(
        recipe_yaml=own_recipe(settled.loaded.recipe, settled.loaded.origins, folder.path),
        plan=settled.plan.to_dict(),
        env=runs.environment(),
    )
    if earlier is not None:
        folder.cut_metrics(earlier.step, evaluated=earlier.evaluated)


def learn(
    settled: Settled, pupil: Learner, journal: Journal, stop: StopRequest, *, started: float
) -> tuple[Progress, ExitCode | None]:
    """Train from where the run stands; returns what was done and why it stopped early, if so."""
    asked, earlier, folder, ranks = settled.asked, settled.earlier, settled.folder, settled.ranks
    progress = standing(settled)
    job = make_job(settled, pupil, journal, stop, progress)
    if earlier is not None and earlier.checkpoint is not None:
        load_into(earlier.checkpoint, pupil, job.optimizer, job.watchdog, ranks)
        job = replace(job, start=progress.step, evaluate_first=progress.evaluation_due)
    facts = resume.facts(settled, base=pupil.base.fingerprint)
    sampler = Sampler.on(settled.tracker.device)
    keep = asked.checkpoint.keep
    saver = Saver(folder, pupil, job.optimizer, job.watchdog, facts, keep, ranks)
    follower = Follower(
        asked,
        progress=progress,
        outlets=Outlets(folder=folder, journal=journal, tracker=settled.tracker),
        save=saver.save,
        clock=Clock.of_recipe(asked, started=started),
        monitor=monitor(asked, settled.plan, sampler, folder=folder.path, before=progress.seconds),
        stop=stop,
        ranks=ranks,
    )
    profile = Profile(asked.logging.profile_steps, folder.path, journal, records=ranks.first)
    forget_peak()
    try:
        job = replace(job, due=lambda step: follower.due(step) or profile.due(step))
        events = profile.around(training.fit(job), start=job.start)
        with sampler:
            code = follower.follow(events)
        pupil.kept_bytes = kept_bytes(pupil, job.optimizer)
        return progress, code
    except OutOfMemory as error:
        raise advise(error, asked, settled.plan, progress) from error
    except DivergedError as error:
        folder.write_diverged(str(error), rows=error.rows)
        raise


def standing(settled: Settled) -> Progress:
    """What the run has done so far."""
    earlier = settled.earlier
    if earlier is None or earlier.checkpoint is None:
        progress = training.Progress(best=training.Best(settled.asked.checkpoint.metric))
    else:
        checkpoint = earlier.checkpoint
        progress = settled.ranks.of_first(lambda: load_progress(checkpoint))
    progress.micro_batch_size = settled.plan.micro_batch_size
    return progress


def make_job(
    settled: Settled,
    pupil: Learner,
    journal: Journal,
    stop: StopRequest,
    progress: Progress | None = None,
) -> training.Job:
    """Loss, optimizer and schedule around a learner and its rows; `progress` is the run's own."""
    asked, decided = settled.asked, settled.plan
    progress = progress or standing(settled)
    steps, held_out = decided.steps, settled.prepared.eval
    assert steps is not None
    feed = make_feed(
        asked,
        settled.prepared.train,
        micro_batch_size=decided.micro_batch_size,
        pad_id=_pad_id(asked, pupil),
        share=pupil.shares_prefixes,
    )
    if settled.lessons is not None:
        feed = replace(feed, layout=Taught(feed.layout, settled.lessons))
    groups = pupil.method.param_groups(
        learning_rate=asked.optim.learning_rate, weight_decay=asked.optim.weight_decay
    )
    pupil.method.will_train(steps.total, longest_row=asked.data.max_length)
    pupil.method.join(settled.ranks)
    return training.Job(
        model=pupil.base.model,
        method=pupil.method,
        loss=losses.make(
            asked.loss,
            chunk_size=decided.loss_chunk_size,
            task=asked.model.task,
            teacher=pupil.teacher,
            lesson_width=None if settled.lessons is None else settled.lessons.notes["width"],
        ),
        optimizer=optim.make(asked.optim, groups),
        schedule=optim.schedule(asked.optim, total_steps=steps.total, warmup_steps=steps.warmup),
        feed=replace(
            feed, tell=journal.line, layout=_shapes(feed.layout, pupil), hand=_hand(settled)
        ),
        total_steps=steps.total,
        steps_per_epoch=steps.per_epoch,
        max_grad_norm=asked.optim.max_grad_norm,
        watchdog=training.Watchdog.of_recipe(asked.watchdog),
        ranks=settled.ranks,
        rehearse=True,
        shrinks=asked.memory.on_oom == "shrink",
        evaluate=None
        if held_out is None
        else HeldOut(held_out, settled, pupil, journal, stop, progress),
        evaluate_first=asked.eval.at_start,
        evaluate_every=asked.eval.steps,
    )


def _hand(settled: Settled) -> Hand:
    """This process's part of every step's rows."""
    return Hand(settled.ranks.seat, in_step=settled.plan.strategy == "fsdp")


def _shapes(layout: Layout, pupil: Learner) -> Layout:
    """On a CPU of few shapes, each of which costs memory there."""
    device = next(pupil.base.model.parameters()).device
    return Rounded(layout) if device.type == "cpu" else layout


def _pad_id(asked: Recipe, pupil: Learner) -> int:
    """What fills up rows: a classifier looks for the id of its own config."""
    if asked.model.task == "classification":
        return getattr(pupil.base.model.config, "pad_token_id", None) or 0
    return filler_id(pupil.tokenizer)
