"""report.json: what a run did, and how it compares with its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.run.memory import peak_bytes

if TYPE_CHECKING:
    from qtune.data import Prepared
    from qtune.plan import Plan
    from qtune.recipe import Loaded
    from qtune.run.follow import Follower
    from qtune.run.prepare import Learner


def train_report(
    loaded: Loaded, decided: Plan, pupil: Learner, prepared: Prepared, follower: Follower
) -> dict[str, Any]:
    """The facts of a finished or stopped run, as plain JSON values."""
    seconds = sum(event.seconds for event in follower.steps)
    tokens = sum(event.tokens for event in follower.steps)
    computed = sum(event.computed for event in follower.steps)
    return {
        "recipe": loaded.name,
        "steps": follower.step,
        "tokens": tokens,
        "supervised_tokens": sum(event.supervised for event in follower.steps),
        "padding_share": round(1 - tokens / computed, 4) if computed else None,
        "training_seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "loss_first": follower.steps[0].loss if follower.steps else None,
        "loss_last": follower.steps[-1].loss if follower.steps else None,
        "evaluations": follower.evaluations,
        "best": {
            "metric": follower.best.metric,
            "step": follower.best.step,
            "value": follower.best.value,
        },
        "trainable_parameters": decided.trainable_parameters,
        "memory": {"planned_bytes": decided.device_bytes, "peak_bytes": peak_bytes()},
        "data": prepared.report.to_dict(),
        "base_fingerprint": pupil.base.fingerprint,
    }
