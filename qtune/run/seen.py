"""Records of metrics.jsonl as the news that they were written from. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_MEASURES = frozenset({"kind", "step", "seconds"})


class StepNews(Protocol):
    """What is shown of a logged step: `qtune.training.StepEvent`, or one read from a file."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""

    @property
    def total(self) -> int:
        """Of so many."""

    @property
    def epoch(self) -> float:
        """Passes over the rows."""

    @property
    def loss(self) -> float:
        """Nats per supervised token."""

    @property
    def grad_norm(self) -> float:
        """Before clipping."""

    @property
    def learning_rate(self) -> float:
        """That of the step."""

    @property
    def tokens_per_second(self) -> float:
        """Padding apart."""

    @property
    def limit_share(self) -> float | None:
        """Of what the machine can do, where it is known."""

    @property
    def seconds(self) -> float:
        """The time that was taken."""


class EvaluationNews(Protocol):
    """What is shown of an evaluation: `qtune.training.EvalEvent`, or one read from a file."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""

    @property
    def measures(self) -> Mapping[str, float]:
        """By name."""

    @property
    def seconds(self) -> float | None:
        """The time that was taken, where it is known."""


@dataclass(frozen=True, kw_only=True)
class SeenStep:
    """A step that a file tells of."""

    step: int
    total: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    tokens_per_second: float
    limit_share: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SeenEvaluation:
    """An evaluation that a file tells of."""

    step: int
    measures: dict[str, float]
    seconds: float | None = None


def step_of(record: Mapping[str, Any], *, total: int) -> SeenStep | None:
    """A logged step; None for a record that is not whole."""
    share = record.get("limit_share")
    try:
        step, speed = int(record["step"]), float(record["tokens_per_second"])
        return SeenStep(
            step=step,
            total=max(total, step),
            epoch=float(record["epoch"]),
            loss=float(record["loss"]),
            grad_norm=float(record["grad_norm"]),
            learning_rate=float(record["learning_rate"]),
            tokens_per_second=speed,
            limit_share=None if share is None else float(share),
            seconds=float(record["tokens"]) / speed if speed > 0 else 0.0,
        )
    except (KeyError, TypeError, ValueError):
        return None


def evaluation_of(record: Mapping[str, Any]) -> SeenEvaluation | None:
    """An evaluation; None for a record that is not whole."""
    measures = {
        key: float(value)
        for key, value in record.items()
        if key not in _NOT_MEASURES and isinstance(value, int | float)
    }
    step = record.get("step")
    if not isinstance(step, int) or not measures:
        return None
    return SeenEvaluation(step=step, measures=measures)
