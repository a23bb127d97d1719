"""What a model knows: loss, perplexity and answers, each with an interval over rows."""

from qtune.evaluation.answers import (
    Answer,
    answer,
    answerable,
    score,
    score_difference,
)
from qtune.evaluation.decode import (
    Continuation,
    context_length,
    decode,
    evaluating,
    greedy,
    sampler,
    stop_ids,
    token_stream,
)
from qtune.evaluation.labels import LabelMeasure, label_difference, measure_labels
from qtune.evaluation.likelihood import LossMeasure, difference, measure_loss
from qtune.evaluation.measure import evaluate
from qtune.evaluation.pace import Pace, Unfinished
from qtune.evaluation.sharing import Together

__all__ = [
    "Answer",
    "Continuation",
    "LabelMeasure",
    "LossMeasure",
    "Pace",
    "Together",
    "Unfinished",
    "answer",
    "answerable",
    "context_length",
    "decode",
    "difference",
    "evaluate",
    "evaluating",
    "greedy",
    "label_difference",
    "measure_labels",
    "measure_loss",
    "sampler",
    "score",
    "score_difference",
    "stop_ids",
    "token_stream",
]
