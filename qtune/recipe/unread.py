"""Settings that nothing would read: a key that was set so is a fault; `to_yaml` leaves it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.recipe.class_rules import classifies
from qtune.recipe.kinds import idle_keys, named_kind
from qtune.recipe.lessons import lessons_of
from qtune.recipe.methods import (
    QuantumConfig,
    RosaConfig,
)
from qtune.recipe.paths import is_local
from qtune.recipe.rule import HELD_OUT, Unread, held_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.sections import Recipe

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
        lambda r: r.loss.teacher in (None, "base") or lessons_of(r) is not None,
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
            "eval.measures",
            "eval.cache",
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
        ("train.num_train_epochs",),
        ("train.max_steps",),
        "train.max_steps wins; empty it to count epochs",
        lambda r: r.train.max_steps is not None,
    ),
    Unread(
        ("optim.warmup_ratio",),
        ("optim.warmup_steps",),
        "optim.warmup_steps wins; empty it for a share of the steps",
        lambda r: r.optim.warmup_steps is not None,
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
        ("distributed.offload",),
        ("distributed.strategy",),
        "only fsdp has shares that could wait elsewhere",
        lambda r: r.distributed.strategy == "ddp",
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
        HELD_OUT,
        "there are no held-out rows",
        lambda r: not held_out(r),
    ),
    Unread(
        ("eval.max_new_tokens", "eval.measures", "eval.cache"),
        (*HELD_OUT, "eval.generate_rows"),
        "nothing is generated without held-out rows and eval.generate_rows",
        lambda r: not held_out(r) or r.eval.generate_rows == 0,
    ),
    Unread(
        ("checkpoint.metric",),
        HELD_OUT,
        "there are no held-out rows to measure on",
        lambda r: not held_out(r),
    ),
    Unread(
        ("checkpoint.final",),
        HELD_OUT,
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
