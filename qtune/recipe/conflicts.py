"""Settings that contradict one another."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from qtune.recipe.class_rules import class_conflicts, classifies
from qtune.recipe.lessons import lessons_of
from qtune.recipe.methods import (
    BridgeConfig,
    CombinationConfig,
    DeltaLoraConfig,
    LongLoraConfig,
    SoftPromptConfig,
    parts_of,
)
from qtune.recipe.peft_types import ONLY_16_BIT
from qtune.recipe.results import AnswerMeasure
from qtune.recipe.rule import HELD_OUT, Conflict, held_out
from qtune.recipe.suggest import close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qtune.recipe.sections import Recipe


HELD_OUT_GATES = ("max_loss", "max_perplexity", "min_loss_drop", "min_accuracy", "min_macro_f1")
ANSWER_GATES = ("min_exact_match", "min_token_f1", "min_exact_match_gain", "min_token_f1_gain")
MEASURE_GATES = ("min_measures", "min_measure_gains")
BASE_GATES = ("min_loss_drop", "min_exact_match_gain", "min_token_f1_gain")


def _type_conflicts() -> Iterator[Conflict]:
    for kind, reason in ONLY_16_BIT.items():
        yield Conflict(
            "method.type",
            ("quantization.bits",),
            f"cannot be on a quantised base: {reason}",
            "set quantization.bits: 16",
            partial(_is_quantized_with, kind=kind),
        )


def _is_quantized_with(recipe: Recipe, *, kind: str) -> bool:
    method = recipe.method
    return (
        recipe.quantization.bits != 16 and isinstance(method, BridgeConfig) and method.type == kind
    )


def _sharing_conflicts() -> Iterator[Conflict]:
    """What a base cannot be whose layers are shared out over several devices."""
    reasons: tuple[tuple[str, str, str, Callable[[Recipe], bool]], ...] = (
        (
            "memory.base",
            "shares out layers that stay where they are, and these are streamed",
            "set memory.base: resident, with distributed.offload: true if need be",
            lambda r: r.memory.base == "stream",
        ),
        (
            "memory.dequantized_layers",
            "shares out 4-bit layers, and these are kept unfolded",
            "remove memory.dequantized_layers",
            lambda r: r.memory.dequantized_layers not in ("auto", 0),
        ),
        (
            "memory.on_oom",
            "needs all processes in step, and one that shrinks its micro-batches is not",
            "set memory.on_oom: error",
            lambda r: r.memory.on_oom == "shrink",
        ),
        (
            "quantization.bits",
            "shares out 4-bit layers only",
            "set quantization.bits: 4, or strategy: ddp",
            lambda r: r.quantization.bits != 4,
        ),
    )
    for because, message, hint, test in reasons:
        yield Conflict(
            "distributed.strategy", (because,), message, hint, partial(_shares_out, test=test)
        )
    yield Conflict(
        "distributed.offload",
        ("method.name",),
        "puts weights elsewhere than a tuner of PEFT looks for them",
        "remove it, or take a method of qtune's own",
        lambda r: (
            r.distributed.offload is True
            and any(isinstance(part, BridgeConfig) for part in parts_of(r.method))
        ),
    )


def _shares_out(recipe: Recipe, *, test: Callable[[Recipe], bool]) -> bool:
    return recipe.distributed.strategy == "fsdp" and test(recipe)


def _gate_conflicts() -> Iterator[Conflict]:
    """A gate that nothing could judge is a conflict, no idle key: no --set may take it away."""
    for gate in (*HELD_OUT_GATES, *ANSWER_GATES):
        yield Conflict(
            f"gates.{gate}",
            HELD_OUT,
            "is judged on held-out rows, and there are none",
            "set data.eval or data.val_size",
            lambda r: not held_out(r),
        )
    for gate in ANSWER_GATES:
        yield Conflict(
            f"gates.{gate}",
            (*HELD_OUT, "eval.generate_rows"),
            "is judged on generated answers, and none are generated",
            "set eval.generate_rows",
            lambda r: held_out(r) and r.eval.generate_rows == 0,
        )
    for gate in BASE_GATES:
        yield Conflict(
            f"gates.{gate}",
            (*HELD_OUT, "eval.at_start"),
            "is judged against the untouched base, which eval.at_start: false leaves out",
            "remove eval.at_start",
            lambda r: held_out(r) and not r.eval.at_start,
        )
    for gate in MEASURE_GATES:
        yield Conflict(
            f"gates.{gate}",
            (*HELD_OUT, "eval.generate_rows", "eval.measures", "eval.tasks"),
            "is not measured",
            "a measure of eval.measures (with eval.generate_rows), or TASK.MEASURE of eval.tasks",
            partial(_names_unmeasured, gate=gate),
            partial(_first_unmeasured, gate=gate),
        )
    yield Conflict(
        "gates.min_measure_gains",
        (*HELD_OUT, "eval.at_start"),
        "is judged against the untouched base, which eval.at_start: false leaves out",
        "remove eval.at_start",
        lambda r: (
            held_out(r)
            and not r.eval.at_start
            and any("." not in name for name in r.gates.min_measure_gains)
        ),
    )


def _names_unmeasured(recipe: Recipe, *, gate: str) -> bool:
    return bool(_unmeasured(recipe, gate))


def _unmeasured(recipe: Recipe, gate: str) -> list[str]:
    """The names in a gate that nothing measures."""
    answered = recipe.eval.measures if held_out(recipe) and recipe.eval.generate_rows else ()
    tasks = _tasks(recipe)
    return [
        name
        for name in getattr(recipe.gates, gate)
        if (name.partition(".")[0] not in tasks if "." in name else name not in answered)
    ]


def _first_unmeasured(recipe: Recipe, *, gate: str) -> tuple[str, str]:
    """The first such name, and a hint if it is a misspelt one."""
    name = _unmeasured(recipe, gate)[0]
    _, dot, measure = name.partition(".")
    known = [f"{one}.{measure}" for one in _tasks(recipe)] if dot else get_args(AnswerMeasure)
    return name, "" if name in known else close(name, known)


def _tasks(recipe: Recipe) -> set[str]:
    return {Path(path).stem for path in recipe.eval.tasks}


CONFLICTS: tuple[Conflict, ...] = (
    *class_conflicts(),
    Conflict(
        "loss.teacher",
        ("model.task",),
        "speaks in next tokens, which a classification does not learn",
        "remove one of them",
        lambda r: r.loss.teacher is not None and classifies(r),
    ),
    Conflict(
        "loss.teacher",
        ("data.streaming",),
        "is what a teacher wrote of rows that it had read, which streaming does not wait for",
        "remove data.streaming, or name a model",
        lambda r: r.data.streaming and lessons_of(r) is not None,
    ),
    Conflict(
        "loss.soft_share",
        ("loss.teacher",),
        "leaves nothing to learn: teacher base is what the student begins as",
        "set it below 1, or name another teacher",
        lambda r: r.loss.teacher == "base" and r.loss.soft_share == 1.0,
    ),
    Conflict(
        "logging.profile_steps",
        (),
        "ends before it begins",
        "name the first step, then the last",
        lambda r: (
            r.logging.profile_steps is not None
            and r.logging.profile_steps[0] > r.logging.profile_steps[1]
        ),
    ),
    Conflict(
        "data.streaming",
        ("train.max_steps",),
        "has no length, so nothing says when the run ends",
        "set train.max_steps",
        lambda r: r.data.streaming and r.train.max_steps is None,
    ),
    Conflict(
        "data.val_size",
        ("data.streaming",),
        "takes rows out of all training rows, which streaming never sees together",
        "name held-out files in data.eval",
        lambda r: r.data.streaming and r.data.val_size > 0 and not r.data.eval,
    ),
    Conflict(
        "data.deduplicate",
        ("data.streaming",),
        "compares all training rows, which streaming never sees together",
        "remove one of them",
        lambda r: r.data.streaming and r.data.deduplicate,
    ),
    Conflict(
        "data.mix",
        ("data.streaming",),
        "takes shares of sources by their number of rows, which streaming does not know",
        "concat and round_robin go with streaming",
        lambda r: r.data.streaming and r.data.mix == "weighted",
    ),
    Conflict(
        "data.on_bad_row",
        ("data.streaming",),
        "skips up to 1% of a source's rows, whose number streaming does not know",
        "a streamed run stops at a faulty row",
        lambda r: r.data.streaming and r.data.on_bad_row == "skip",
    ),
    Conflict(
        "train.group_by_length",
        ("data.streaming",),
        "sorts the rows of an epoch, which streaming never sees together",
        "take data.packing, which goes with streaming",
        lambda r: r.data.streaming and r.train.group_by_length,
    ),
    *_gate_conflicts(),
    Conflict(
        "method.form",
        ("quantization.bits",),
        "cannot be in_place on few bits: rounding the weight to them would undo each step",
        "set it to virtual, which computes the same, or quantization.bits to 16",
        lambda r: (
            r.quantization.bits != 16
            and any(
                isinstance(part, DeltaLoraConfig) and part.form == "in_place"
                for part in parts_of(r.method)
            )
        ),
    ),
    *_type_conflicts(),
    *_sharing_conflicts(),
    Conflict(
        "method.rates",
        ("method.parts",),
        "is not one number for each part",
        "",
        lambda r: (
            isinstance(r.method, CombinationConfig)
            and len(r.method.rates) not in (0, len(r.method.parts))
        ),
    ),
    Conflict(
        "data.packing",
        ("method.name",),
        "cannot be with prompt tuning, whose virtual tokens stand before a sequence, not a row",
        "remove it, or take another method",
        lambda r: (
            r.data.packing
            and any(isinstance(part, SoftPromptConfig) for part in parts_of(r.method))
        ),
    ),
    Conflict(
        "data.packing",
        ("method.name",),
        "cannot be with long_lora, whose groups of tokens begin with a row, not amid a sequence",
        "remove it, or take another method",
        lambda r: (
            r.data.packing and any(isinstance(part, LongLoraConfig) for part in parts_of(r.method))
        ),
    ),
    Conflict(
        "logging.report_to",
        ("model.offline",),
        "sends what it logs over the network, and model.offline forbids it",
        "remove one of them",
        lambda r: r.model.offline and bool({"wandb", "comet_ml"} & {*r.logging.report_to}),
    ),
    Conflict(
        "train.group_by_length",
        ("data.shuffle",),
        "changes the order of the rows, which shuffle: false keeps",
        "remove one of them",
        lambda r: r.train.group_by_length and not r.data.shuffle,
    ),
    Conflict(
        "data.val_size",
        (),
        "is not a share below 1 or a whole number of rows",
        "",
        lambda r: r.data.val_size >= 1 and not r.data.val_size.is_integer(),
    ),
    Conflict(
        "checkpoint.metric",
        (*HELD_OUT, "eval.generate_rows"),
        "is measured on generated answers, and none are generated",
        "set eval.generate_rows",
        lambda r: (
            held_out(r)
            and r.checkpoint.metric in get_args(AnswerMeasure)
            and not classifies(r)
            and r.eval.generate_rows == 0
        ),
    ),
    Conflict(
        "checkpoint.metric",
        ("eval.measures",),
        "is not one of eval.measures",
        "add it there",
        lambda r: (
            r.checkpoint.metric in get_args(AnswerMeasure)
            and not classifies(r)
            and r.checkpoint.metric not in r.eval.measures
        ),
    ),
    Conflict(
        "eval.tasks",
        ("model.task",),
        "asks for text or its likelihood, and a classification has neither",
        "remove one of them",
        lambda r: bool(r.eval.tasks) and classifies(r),
    ),
)
