"""What the loop tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass

Measures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """After optimizer step `step` (1-based) of `total`; losses in nats per supervised token.

    Tokens and losses are of all processes, times of this one. `waited`: those of the `seconds` in
    which nothing ran, for the rows were not there yet; `joining`: in which it waited for the other
    processes' gradients, or sent its own.
    `limit_share`: the time that the frozen weights need at this machine's rate, over `seconds`.
    """

    step: int
    total: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised: int
    computed: int
    shared: int = 0
    seconds: float
    waited: float = 0.0
    joining: float = 0.0
    limit_share: float | None = None

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


@dataclass(frozen=True, kw_only=True)
class RehearsalEvent:
    """The longest micro-batch of the steps after `step` went through, `rows` x `length` tokens,
    and nothing was learnt from it."""

    step: int
    rows: int
    length: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ShrinkEvent:
    """Memory ran out after `step` steps (`where`: what was being done): from here on micro-batches
    have at most `rows` sequences instead of `before`, and the step is done again."""

    step: int
    rows: int
    before: int
    where: str


Event = StepEvent | EvalEvent | Boundary | RehearsalEvent | ShrinkEvent
