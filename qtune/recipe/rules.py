"""Faults between keys: settings that nothing would read, and settings that contradict.

A key that was set but that nothing reads is a fault; `to_yaml` leaves such keys out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtune.recipe.class_rules import class_conflicts, classifies
from qtune.recipe.kinds import idle_keys, named_kind
from qtune.recipe.methods import (
    BridgeConfig,
    CombinationConfig,
    DeltaLoraConfig,
    QuantumConfig,
    RosaConfig,
    SoftPromptConfig,
    parts_of,
)
from qtune.recipe.paths import is_local
from qtune.recipe.peft_types import ONLY_16_BIT
from qtune.recipe.rule import Conflict, Unread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.sections import Recipe, SourceSection


def held_out(recipe: Recipe) -> bool:
    """Whether there are rows to evaluate on."""
    return bool(recipe.data.eval) or recipe.data.val_size > 0


_HELD_OUT = ("data.eval", "data.val_size")
_EPSILON_FREE = ("sgd", "lion_8bit", "paged_lion_8bit")

UNREAD: tuple[Unread, ...] = (
    Unread(
        ("loss.temperature", "loss.soft_share", "loss.divergence"),
        ("loss.teacher",),
        "there is no teacher",
        lambda r: r.loss.teacher is None,
    ),
    Unread(
        ("loss.teacher_bits",),
        ("loss.teacher",),
        "no other model is loaded",
        lambda r: r.loss.teacher in (None, "base"),
    ),
    Unread(
        ("model.labels",),
        ("model.task",),
        "only a classification has labels",
        lambda r: not classifies(r),
    ),
    Unread(
        (
            "loss.train_on",
            "loss.train_on_thinking",
            "memory.loss_chunk_size",
            "eval.generate_rows",
            "eval.max_new_tokens",
        ),
        ("model.task",),
        "a classification learns one label a row, and writes nothing",
        classifies,
    ),
    Unread(
        ("quantization.quant_type", "quantization.double_quant"),
        ("quantization.bits",),
        "only 4-bit weights have it",
        lambda r: r.quantization.bits != 4,
    ),
    Unread(
        ("quantization.skip_modules",),
        ("quantization.bits",),
        "nothing is quantised with bits 16",
        lambda r: r.quantization.bits == 16,
    ),
    Unread(
        ("data.val_size",),
        ("data.eval",),
        "data.eval already names the held-out rows",
        lambda r: bool(r.data.eval) and r.data.val_size > 0,
    ),
    Unread(
        ("data.split_by",),
        ("data.val_size", "data.eval"),
        "no rows are held out of the training rows",
        lambda r: not r.data.val_size or bool(r.data.eval),
    ),
    Unread(
        ("loss.train_on_thinking",),
        ("loss.train_on",),
        "train_on: all learns every token",
        lambda r: r.loss.train_on == "all",
    ),
    Unread(
        ("data.shuffle_buffer",),
        ("data.streaming", "data.shuffle"),
        "only a streamed run that shuffles has one",
        lambda r: not (r.data.streaming and r.data.shuffle),
    ),
    Unread(
        ("data.cache_dir",),
        ("data.streaming",),
        "streamed rows are not kept, and there are no evaluation rows",
        lambda r: r.data.streaming and not r.data.eval,
    ),
    Unread(
        ("train.group_by_length",),
        ("data.packing",),
        "packed rows need no company of like length",
        lambda r: r.data.packing,
    ),
    Unread(
        ("data.share_prefixes",),
        ("data.packing",),
        "only packed rows stand in one sequence",
        lambda r: not r.data.packing,
    ),
    Unread(
        ("optim.min_lr_ratio",),
        ("optim.lr_scheduler_type",),
        "a constant learning rate has no end value",
        lambda r: r.optim.lr_scheduler_type == "constant",
    ),
    Unread(
        ("optim.eps",),
        ("optim.name",),
        "this optimizer has no epsilon",
        lambda r: r.optim.name in _EPSILON_FREE,
    ),
    Unread(
        ("eval.steps", "eval.at_start", "eval.batch_size", "eval.generate_rows"),
        _HELD_OUT,
        "there are no held-out rows",
        lambda r: not held_out(r),
    ),
    Unread(
        ("eval.max_new_tokens",),
        (*_HELD_OUT, "eval.generate_rows"),
        "nothing is generated without held-out rows and eval.generate_rows",
        lambda r: not held_out(r) or r.eval.generate_rows == 0,
    ),
    Unread(
        ("checkpoint.metric",),
        _HELD_OUT,
        "there are no held-out rows to measure on",
        lambda r: not held_out(r),
    ),
    Unread(
        ("checkpoint.final",),
        _HELD_OUT,
        "without held-out rows no weights are known to be best",
        lambda r: not held_out(r) and r.checkpoint.final == "best",
    ),
    Unread(
        ("method.circuit_layers",),
        ("method.form",),
        "the taylor form has no circuit",
        lambda r: isinstance(r.method, QuantumConfig) and r.method.form == "taylor",
    ),
    Unread(
        ("method.intrinsic_rank",),
        ("method.form",),
        "a circuit has none",
        lambda r: isinstance(r.method, QuantumConfig) and r.method.form == "pauli",
    ),
    Unread(
        ("method.warmup_steps",),
        ("method.mask_from",),
        "the places of another run are there from the first step on",
        lambda r: isinstance(r.method, RosaConfig) and r.method.mask_from is not None,
    ),
    Unread(
        ("model.revision",),
        ("model.name_or_path",),
        "a local folder has no revisions",
        lambda r: is_local(r.model.name_or_path),
    ),
)

HELD_OUT_GATES = ("max_loss", "max_perplexity", "min_loss_drop", "min_accuracy", "min_macro_f1")
ANSWER_GATES = ("min_exact_match", "min_token_f1", "min_exact_match_gain", "min_token_f1_gain")
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


def _gate_conflicts() -> Iterator[Conflict]:
    """A gate that nothing could judge is a conflict, no idle key: no --set may take it away."""
    for gate in (*HELD_OUT_GATES, *ANSWER_GATES):
        yield Conflict(
            f"gates.{gate}",
            _HELD_OUT,
            "is judged on held-out rows, and there are none",
            "set data.eval or data.val_size",
            lambda r: not held_out(r),
        )
    for gate in ANSWER_GATES:
        yield Conflict(
            f"gates.{gate}",
            (*_HELD_OUT, "eval.generate_rows"),
            "is judged on generated answers, and none are generated",
            "set eval.generate_rows",
            lambda r: held_out(r) and r.eval.generate_rows == 0,
        )
    for gate in BASE_GATES:
        yield Conflict(
            f"gates.{gate}",
            (*_HELD_OUT, "eval.at_start"),
            "is judged against the untouched base, which eval.at_start: false leaves out",
            "remove eval.at_start",
            lambda r: held_out(r) and not r.eval.at_start,
        )


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
        (*_HELD_OUT, "eval.generate_rows"),
        "is measured on generated answers, and none are generated",
        "set eval.generate_rows",
        lambda r: (
            held_out(r)
            and r.checkpoint.metric in ("exact_match", "token_f1")
            and not classifies(r)
            and r.eval.generate_rows == 0
        ),
    ),
)


def unread(recipe: Recipe) -> dict[str, Unread]:
    """The keys that nothing would read in this recipe, each with its rule."""
    found = {key: rule for rule in UNREAD if rule.test(recipe) for key in rule.keys}
    for list_key in ("train", "eval"):
        for index, source in enumerate(getattr(recipe.data, list_key)):
            prefix = f"data.{list_key}.{index}"
            weighted = list_key == "train" and recipe.data.mix == "weighted"
            weight = [] if weighted else [("weight", "only mix: weighted looks at it")]
            for key, reason in [*_unread_of_source(source), *weight]:
                found[f"{prefix}.{key}"] = Unread((key,), (f"{prefix}.path",), reason, bool)
    return found


def _unread_of_source(source: SourceSection) -> Iterator[tuple[str, str]]:
    """Keys of a source that its kind of file or format does not use."""
    yield from idle_keys(source, named_kind(source))
    if source.format not in ("auto", "prompt-completion", "classification"):
        yield "prompt_template", f"format {source.format} has none"
    if source.format not in ("auto", "classification"):
        yield "labels", f"format {source.format} has none"
