"""What the loop tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass

Measures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """After optimizer step `step` (1-based) of `total`; losses in nats per supervised token."""

    step: int
    total: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised: int
    computed: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the step, padding apart, over its time."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, kw_only=True)
class EvalEvent:
    """Held-out measures after `step` optimizer steps (0: before the first)."""

    step: int
    measures: Measures
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """All that belongs to `step` is done: the one moment at which a checkpoint is exact.

    `evaluated`: whether the evaluation that was due after this step has been made; `last`: nothing
    follows.
    """

    step: int
    evaluated: bool
    last: bool = False


Event = StepEvent | EvalEvent | Boundary
