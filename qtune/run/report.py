"""report.json: what a run did, and how it compares with its plan."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qtune.run.memory import compared, peak_bytes
from qtune.run.parts import compared_parts

if TYPE_CHECKING:
    from qtune.data import Prepared, Streamed
    from qtune.plan import Plan
    from qtune.recipe import Loaded
    from qtune.run.prepare import Learner
    from qtune.training import Progress


def train_report(
    loaded: Loaded, decided: Plan, pupil: Learner, prepared: Prepared | Streamed, progress: Progress
) -> dict[str, Any]:
    """The facts of a finished or stopped run, as plain JSON values."""
    seconds, tokens, computed = progress.seconds, progress.tokens, progress.computed
    own = tokens - progress.shared
    return {
        "recipe": loaded.name,
        "processes": decided.processes,
        "steps": progress.step,
        "tokens": tokens,
        "supervised_tokens": progress.supervised,
        "padding_share": round(1 - own / computed, 4) if computed else None,
        "shared_share": round(progress.shared / tokens, 4) if tokens else None,
        "training_seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "limit_share": None if progress.limit_share is None else round(progress.limit_share, 4),
        "loss_first": progress.loss_first,
        "loss_last": progress.loss_last,
        "evaluations": progress.evaluations,
        "best": asdict(progress.best),
        "trainable_parameters": decided.trainable_parameters,
        "memory": _memory(decided, pupil, max(progress.peak_bytes, peak_bytes())),
        "shrunk": progress.shrunk,
        "streamed": pupil.base.streamed.account() if pupil.base.streamed else None,
        "data": prepared.report.to_dict(),
        "base_fingerprint": pupil.base.fingerprint,
    }


def _memory(decided: Plan, pupil: Learner, peak: int) -> dict[str, Any]:
    """The peak and, unless the base comes layer by layer, its parts."""
    figures: dict[str, Any] = compared(decided.device_bytes, peak)
    if pupil.kept_bytes and not pupil.base.streamed:
        figures["parts"] = compared_parts(decided, pupil.kept_bytes, peak)
    return figures
