"""The gates of a run that has done all its steps: judged as they are asked now, and kept so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.durable import write_text
from qtune.run import gates, pins
from qtune.run.own_recipe import own_recipe
from qtune.run.pages.write import leaving_page

if TYPE_CHECKING:
    from qtune.errors import ExitCode
    from qtune.run.display import Journal
    from qtune.run.train import Settled


def judge_again(
    settled: Settled, done: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], ExitCode]:
    """The report of a finished run with its verdicts, and the exit code; what the folder says of
    gates is that of now, too."""
    folder, asked = settled.folder, settled.asked
    report, code = gates.conclude(folder.path, asked.gates, done, journal)
    if report["gates"] != done.get("gates"):
        with folder.writing(), leaving_page(folder.path, journal.line):
            _keep(settled)
            folder.write_report(report)
    return report, code


def _keep(settled: Settled) -> None:
    """Gates and the measures that they may need; of what was learnt all stays as it was."""
    folder, asked = settled.folder.path, settled.asked
    now = {"gates": asked.gates, "eval": asked.eval}
    for name, origins in (("recipe.yaml", settled.loaded.origins), (pins.LOCK, {})):
        kept = recipe.load(folder / name).recipe.model_copy(update=now)
        write_text(folder / name, own_recipe(kept, origins, folder))
