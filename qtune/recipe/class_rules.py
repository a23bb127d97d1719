"""What a classification cannot have, and what nothing but a classification has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.recipe.rule import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.rule import Test
    from qtune.recipe.sections import Recipe

GATES = ("min_accuracy", "min_macro_f1")
METRICS = ("accuracy", "macro_f1", "matthews")


def classifies(recipe: Recipe) -> bool:
    """Whether labels of whole texts are learnt."""
    return recipe.model.task == "classification"


_REFUSED: tuple[tuple[str, str, str, Test], ...] = (
    (
        "method.name",
        "trains no head beside itself, which a classification needs",
        "take lora, lora_fa, dylora, delta_lora or rosa",
        lambda r: "modules_to_save" not in type(r.method).model_fields,
    ),
    (
        "method.name",
        "shifts the attention of long texts that are written on, not labelled",
        "take lora",
        lambda r: r.method.name == "long_lora",
    ),
    (
        "data.packing",
        "cannot be with a classification, whose head looks at the first or last token of a row",
        "remove it: rows of like length are padded together",
        lambda r: r.data.packing,
    ),
    (
        "data.streaming",
        "cannot be with a classification, whose labels are all known before it starts",
        "remove it",
        lambda r: r.data.streaming,
    ),
    (
        "memory.base",
        "cannot stream a classification's layers: their copy on disk is a language model's",
        "remove it",
        lambda r: r.memory.base == "stream",
    ),
    (
        "data.overlong",
        "would part a text from its label",
        "take truncate_end, truncate_prompt (which cuts the beginning) or drop",
        lambda r: r.data.overlong == "split",
    ),
    (
        "checkpoint.metric",
        "is measured on generated answers, and a classification writes none",
        f"take loss, {', '.join(METRICS)}",
        lambda r: r.checkpoint.metric in ("exact_match", "token_f1"),
    ),
    (
        "gates.max_perplexity",
        "is of tokens, and a classification has none",
        "take max_loss, min_accuracy or min_macro_f1",
        lambda r: r.gates.max_perplexity is not None,
    ),
)


def class_conflicts() -> Iterator[Conflict]:
    """A conflict for each; the task is what it rests on."""
    for key, message, hint, test in _REFUSED:
        yield Conflict(key, ("model.task",), message, hint, _both(classifies, test))
    own = [(f"gates.{gate}", _has_gate(gate)) for gate in GATES]
    for key, test in [*own, ("checkpoint.metric", _measures_labels)]:
        message, hint = "is a classification's", "set task: classification"
        yield Conflict(key, ("model.task",), message, hint, _both(_no_classification, test))


def _no_classification(recipe: Recipe) -> bool:
    return not classifies(recipe)


def _measures_labels(recipe: Recipe) -> bool:
    return recipe.checkpoint.metric in METRICS


def _has_gate(gate: str) -> Test:
    return lambda recipe: getattr(recipe.gates, gate) is not None


def _both(one: Test, other: Test) -> Test:
    return lambda recipe: one(recipe) and other(recipe)
