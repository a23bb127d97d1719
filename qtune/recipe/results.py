"""The sections of a recipe that say what becomes of it: measures, checkpoints, gates, logs.

The text under a key is its documentation: `qtune schema` prints it, and faults quote it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qtune.recipe.duration import Duration  # noqa: TC001 - pydantic reads it
from qtune.recipe.section import Names, Real, Section, Share, Size

Step = Annotated[int, Field(ge=1)]
CacheKind = Literal["dynamic", "static", "quantized"]
AnswerMeasure = Literal["exact_match", "token_f1", "bleu", "chrf", "rouge_l", "numeric", "stopped"]

SMALLER_IS_BETTER = frozenset({"loss"})
"""Of the held-out measures."""


class EvalSection(Section):
    """When and what is measured on the held-out rows."""

    steps: int | None = Field(default=None, ge=1)
    """Evaluate each so many optimizer steps; without it at the start and the end only."""
    at_start: bool = True
    """Evaluate once before the first step."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows of one evaluation pass; without it the micro-batch size."""
    generate_rows: int = Field(default=0, ge=0)
    """Held-out rows answered by greedy decoding for exact match and token F1."""
    max_new_tokens: int = Field(default=64, ge=1)
    """The longest answer."""
    measures: Annotated[tuple[AnswerMeasure, ...], Field(strict=False, min_length=1)] = (
        "exact_match",
        "token_f1",
        "stopped",
    )
    """What is measured of the answers; bleu, chrf and rouge_l need the extra qtune[eval]."""
    cache: CacheKind = "dynamic"
    """Keys and values while answers are generated: growing, static (of fixed size), or quantized
    (4 bits, by the package optimum-quanto)."""
    tasks: Names = ()
    """Task files (`qtune eval --task`) that the finished run is measured on, beside its base."""


class CheckpointSection(Section):
    """What a run saves on its way, so that it can go on after any end, and what it leaves."""

    steps: int | None = Field(default=None, ge=1)
    """Save each so many steps, beside each evaluation and the end."""
    every: Duration | None = None
    """Save when so much time has passed since the last checkpoint, such as 30m."""
    keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay, beside the best one."""
    resume: Literal["never", "auto"] = "never"
    """auto: go on with the run in the output folder when it is this one, else begin."""
    metric: Literal[
        "loss",
        "exact_match",
        "token_f1",
        "bleu",
        "chrf",
        "rouge_l",
        "numeric",
        "accuracy",
        "macro_f1",
        "matthews",
    ] = "loss"
    """The held-out measure that names the best weights; the last three are a classification's."""
    final: Literal["best", "last"] = "best"
    """Which weights adapter/ holds; the others are in checkpoints/."""


class GatesSection(Section):
    """What a finished run must have reached, else it exits with 9; the adapter stays."""

    max_loss: Annotated[Real, Field(gt=0.0)] | None = None
    """The held-out loss of the result, at most."""
    max_perplexity: Annotated[Real, Field(ge=1.0)] | None = None
    """The held-out perplexity of the result, at most."""
    min_exact_match: Share | None = None
    """The share of held-out answers that are exactly right, at least."""
    min_token_f1: Share | None = None
    """The mean token F1 of the held-out answers, at least."""
    min_accuracy: Share | None = None
    """The share of held-out rows that a classification labels rightly, at least."""
    min_macro_f1: Share | None = None
    """The F1 of a classification's labels, each counted alike, at least."""
    min_loss_drop: Real | None = None
    """By how much the held-out loss is below the untouched base's, at least; 0: no worse."""
    min_exact_match_gain: Real | None = None
    """By how much exact match is above the untouched base's, at least."""
    min_token_f1_gain: Real | None = None
    """By how much token F1 is above the untouched base's, at least."""
    min_measures: dict[str, Real] = {}
    """Any measure of eval.measures, and of eval.tasks as TASK.MEASURE, at least: {bleu: 20,
    arc.accuracy: 0.4}."""
    min_measure_gains: dict[str, Real] = {}
    """By how much such a measure is above the untouched base's, at least."""
    max_peak_memory: Size | None = None
    """The most memory that training held (device, or host on a CPU), such as 24GB."""
    min_tokens_per_second: Annotated[Real, Field(gt=0.0)] | None = None
    """Tokens a second over all training steps, at least."""
    max_wall_time: Duration | None = None
    """From the start of the process to the result, such as 2h."""


class LoggingSection(Section):
    """What is written while training."""

    steps: int = Field(default=1, ge=1)
    """Log each so many optimizer steps."""
    profile_steps: Annotated[tuple[Step, Step], Field(strict=False)] | None = None
    """First and last optimizer step to record into profile/: a trace, and on a GPU a snapshot of
    its memory."""
    report_to: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow", "comet_ml", "trackio"], ...],
        Field(strict=False),
    ] = ()
    """Trackers of accelerate, beside metrics.jsonl."""


MergeBase = Literal["dequantized", "original", "auto"]
Combination = Literal["linear", "cat", "svd", "ties", "dare"]
Requantize = Literal["none", "nf4"]
MergeDtype = Literal["auto", "bfloat16", "float16", "float32"]


class MergeSection(Section):
    """How the adapter is folded into full weights."""

    base: MergeBase = "dequantized"
    """Add to the weights that were trained on, or to the 16-bit originals (another model); auto:
    to those with the lower loss on the held-out rows."""
    dtype: MergeDtype = "auto"
    """dtype of the written weights; auto keeps that of the base."""
    max_shard_size: Size = "5GB"
    """The largest weight file."""
    quantize: Requantize = "none"
    """nf4: quantise the verified result again; lossy, by how much is measured and written on it."""
    max_memory: Size = "4GB"
    """The most that the merge may hold, libraries and verification included, whatever the model's
    size; a model that is larger is verified layer by layer."""
    max_kl: Annotated[Real, Field(ge=0.0)] = 1e-4
    """Refuse a merged model whose mean KL to the trained one is above this (nats per token)."""
    keep_mask: bool = False
    """Keep the zeros of a pruned base: the adapter's share in them is left out, which makes another
    model; how far it is from the trained one is told, and max_kl does not judge it."""


class PinsSection(Section):
    """What a run was made of, as recipe.lock.yaml keeps it: another file or base is refused."""

    data: dict[str, str] = {}
    """sha256 of the local data files: train.0, or train.0/name for one of several."""
    rows: dict[str, str] = {}
    """sha256 of the encoded rows, train and eval: tokenizer, template and settings count."""
    base: str | None = None
    """Fingerprint of the base model."""
    teacher: str | None = None
    """Fingerprint of the other model that teaches, or sha256 of what one wrote."""
    packages: dict[str, str] = {}
    """Versions of qtune and of the libraries; another one is only said."""
