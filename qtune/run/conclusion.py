"""The end of a run: its adapter published, its tasks measured, its report and gates written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtune import methods
from qtune.errors import ExitCode
from qtune.run import cards, gates
from qtune.run.doubts import doubts
from qtune.run.held_out import together
from qtune.run.memory import memory_line
from qtune.run.report import train_report
from qtune.run.tasks import measure_run

if TYPE_CHECKING:
    from qtune.run.display import Journal
    from qtune.run.prepare import Learner
    from qtune.run.train import Settled
    from qtune.runs import RunFolder
    from qtune.training import Progress


def conclude(
    settled: Settled,
    pupil: Learner,
    progress: Progress,
    code: ExitCode | None,
    journal: Journal,
    *,
    started: float,
) -> tuple[dict[str, Any], int]:
    """Publish the adapter and the report of a run that came to its end, or tell where one that was
    stopped stands; every process has the first one's report and code."""
    folder, ranks = settled.folder, settled.ranks
    report = train_report(settled.loaded, settled.plan, pupil, settled.prepared, progress)
    report["seconds"] = round(time.perf_counter() - started, 3)
    journal.line(memory_line(report["memory"]))
    if code is not None:
        reason = _stopped(folder, progress.step, code)
        journal.line(reason)
        if ranks.first:
            gates.stopped(folder.path, settled.loaded.name, reason, code, journal)
        return ranks.of_first(lambda: (report, int(code)))
    best = progress.best.step if settled.asked.checkpoint.final == "best" else None
    report["adapter_step"] = best or progress.step
    report["doubts"] = doubts(progress, report["adapter_step"], report["data"])
    for line in report["doubts"]:
        journal.line(f"warning: {line}")
    with folder.writing():
        folder.publish(report["adapter_step"])
        report |= _tasks(settled, pupil, journal)
        return ranks.of_first(lambda: _written(settled, report, journal))


def _tasks(settled: Settled, pupil: Learner, journal: Journal) -> dict[str, Any]:
    """The tasks on the published weights, by all processes; the first one writes them down."""
    folder, ranks = settled.folder, settled.ranks
    if not settled.tasks:
        return {}
    tensors = ranks.of_first(lambda: methods.read(folder.adapter).tensors)
    pupil.method.load_adapter(tensors)
    place = folder.path if ranks.first else None
    shared = together(settled, pupil)
    return measure_run(settled.tasks, pupil, settled.asked, place, journal, together=shared)


def _written(
    settled: Settled, report: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], int]:
    folder = settled.folder
    report, verdict = gates.conclude(folder.path, settled.asked.gates, report, journal)
    folder.write_report(report)
    cards.leave_beside(folder.adapter)
    journal.line(f"adapter of step {report['adapter_step']} in {folder.path.name}/adapter")
    return report, int(verdict)


def _stopped(folder: RunFolder, step: int, code: ExitCode) -> str:
    why = "stopped: train.max_time is up" if code is ExitCode.TIME_LIMIT else "stopped"
    if not step:
        return f"{why} before the first step; there are no weights to keep"
    saved = folder.checkpoint(step).relative_to(folder.path.parent)
    return f"{why} after step {step}, saved in {saved}; go on with --resume"
