"""What transformers' trainer and PEFT call alike in several tools, moved to our keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import templates
from qtune.recipe import foreign
from qtune.recipe.importing.facts import DTYPES, HALF, OPTIMIZERS, SCHEDULERS, TRACKERS
from qtune.recipe.scalars import scalar

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft

ENDS_WHOLE = 1.0e9
"""A gradient norm that no step reaches: of tools that do not clip."""


def batch(draft: Draft, micro: str, accumulation: str, *, defaults: tuple[int, int]) -> None:
    """Rows of an optimizer step: micro-batch times accumulation, times the devices said."""
    first, second = draft.peek(micro), draft.peek(accumulation)
    rows, steps = (
        default if node is None else _quoted(node.value)
        for node, default in zip((first, second), defaults, strict=True)
    )
    anchor = first or second
    if type(rows) is not int or type(steps) is not int:
        draft.remark(f"{micro} and {accumulation} are no numbers: train.batch_size is qtune's own")
        for key in (micro, accumulation):
            draft.leave(key, "not in qtune", "what a step learns from is no number there")
        return
    draft.take(accumulation)
    draft.leave(micro, "left to the plan", "train.batch_size keeps what a step learns from")
    by = f"{micro} {rows} x {accumulation} {steps}"
    if draft.devices > 1:
        by += f" x {draft.devices} devices"
    value = rows * steps * draft.devices
    if anchor is None:
        draft.default("train.batch_size", value, f"{draft.tool}'s default, {by}")
    else:
        draft.put("train.batch_size", anchor, value, by)


def _quoted(value: Any) -> Any:
    """A number in quotes is still a number."""
    return scalar(value) if isinstance(value, str) else value


def packed(draft: Draft) -> None:
    """Say what a step held where rows are packed; after the batch is known."""
    if not draft.got("data.packing"):
        return
    held, size = draft.got("train.batch_size", "some"), draft.got("data.max_length", 2048)
    draft.remark(
        f"a step there held {held} sequences, each packed with many rows up to {size} tokens; "
        "train.batch_size counts rows: raise it to learn from as many a step"
    )


def optimizer(draft: Draft, key: str, *, default: str) -> None:
    """The optimizer by its name."""
    node = draft.take(key)
    if node is None:
        draft.default("optim.name", default)
        return
    name = str(node.value).rpartition(".")[2].lower()
    ours = OPTIMIZERS.get(name)
    if ours is None:
        draft.remark(f"{key}: {node.value} is not in qtune: AdamW takes its place")
    elif "32bit" in name and "lion" in name:
        draft.remark(f"{key}: {node.value}: qtune's Lion keeps its states in 8 bits")
    draft.put("optim.name", node, ours or "adamw", f"written {key}: {node.value}")


def schedule(draft: Draft, key: str, *, default: str) -> None:
    """Learning-rate schedule and warm-up, as transformers reads them."""
    node = draft.take(key)
    name = default if node is None else str(node.value)
    ours = SCHEDULERS.get(name)
    if ours is None:
        draft.remark(f"{key}: {name} is not in qtune: cosine takes its place")
    if node is None:
        draft.default("optim.lr_scheduler_type", ours or "cosine")
    else:
        draft.put("optim.lr_scheduler_type", node, ours or "cosine", f"written {key}")
    draft.move("lr_scheduler_kwargs.min_lr_rate", "optim.min_lr_ratio")
    if name == "constant":
        why = "their constant schedule has no warm-up"
        draft.leave("warmup_ratio", "not needed", why)
        draft.leave("warmup_steps", "not needed", why)
        draft.default("optim.warmup_steps", 0, why)
        return
    warmup(draft)


def warmup(draft: Draft) -> None:
    """Steps of warm-up, which win over a share of all."""
    steps = draft.peek("warmup_steps")
    if steps is not None and isinstance(steps.value, float) and 0 < steps.value < 1:
        draft.move("warmup_steps", "optim.warmup_ratio")
    elif steps is not None and steps.value:
        draft.move("warmup_steps", "optim.warmup_steps")
        draft.leave("warmup_ratio", "not needed", "warmup_steps wins over it")
    elif not draft.move("warmup_ratio", "optim.warmup_ratio"):
        draft.value("warmup_steps")
        draft.default("optim.warmup_steps", 0)


def rates(draft: Draft, *, learning_rate: float, clip: str = "max_grad_norm") -> None:
    """Learning rate, decay, betas, epsilon and clipping, with transformers' defaults."""
    if not draft.move("learning_rate", "optim.learning_rate"):
        draft.default("optim.learning_rate", learning_rate)
    draft.move("weight_decay", "optim.weight_decay")
    draft.move("adam_epsilon", "optim.eps")
    first, second = draft.peek("adam_beta1"), draft.peek("adam_beta2")
    if anchor := first or second:
        pair = [draft.value("adam_beta1", 0.9), draft.value("adam_beta2", 0.999)]
        draft.put("optim.betas", anchor, pair, "written adam_beta1 and adam_beta2")
    node = draft.take(clip)
    if node is not None and not node.value:
        draft.put("optim.max_grad_norm", node, ENDS_WHOLE, f"written {clip}: not clipped")
    elif node is not None:
        draft.put("optim.max_grad_norm", node, node.plain(), f"written {clip}")
    else:
        draft.default("optim.max_grad_norm", 1.0)


def length(draft: Draft, *, epochs: float, key: str = "num_train_epochs") -> None:
    """Epochs, or steps where they are given and above zero."""
    steps = draft.peek("max_steps")
    if steps is not None and isinstance(steps.value, int) and steps.value > 0:
        draft.move("max_steps", "train.max_steps")
        draft.leave(key, "not needed", "max_steps wins over it")
        return
    draft.value("max_steps")
    if not draft.move(key, "train.num_train_epochs"):
        draft.default("train.num_train_epochs", epochs)


def saving(draft: Draft) -> None:
    """Checkpoints and logging by steps."""
    strategy = draft.peek("save_strategy")
    if strategy is not None and strategy.value in ("no", "epoch", "best"):
        draft.leave("save_steps", "not needed", "save_strategy says otherwise")
    by_steps(draft, "save_steps", "checkpoint.steps")
    draft.move("save_total_limit", "checkpoint.keep")
    by_steps(draft, "logging_steps", "logging.steps")
    draft.move("report_to", "logging.report_to", trackers)


def evaluating(draft: Draft, strategy: tuple[str, ...] = ("eval_strategy",)) -> None:
    """Evaluations by steps, where there are held-out rows."""
    held_out = draft.has("data.eval") or draft.got("data.val_size", 0)
    node = next((n for key in strategy if (n := draft.peek(key))), None)
    if held_out and (node is None or node.value == "steps"):
        by_steps(draft, "eval_steps", "eval.steps")
    elif not held_out:
        draft.leave("eval_steps", "not needed", "there are no held-out rows")


def precision(draft: Draft, *keys: str) -> None:
    """The dtype of matrix products; float16 becomes bfloat16."""
    if (node := draft.peek("fp16")) and node.value:
        draft.move("fp16", "quantization.compute_dtype", lambda _: "bfloat16")
        draft.remark("fp16 becomes bfloat16, whose range needs no loss scaling")
    draft.value("fp16")
    for key in keys:
        dtype(draft, key)
    node = draft.take("bf16")
    if node is not None and node.value in (True, "true", "full"):
        draft.put("quantization.compute_dtype", node, "bfloat16", "written bf16")


def dtype(draft: Draft, key: str) -> None:
    """The dtype of matrix products by its name; one of 16 bits becomes bfloat16."""
    node = draft.take(key)
    name = "" if node is None else str(node.value)
    if node is None or name not in DTYPES:
        return
    if name in HALF:
        draft.remark(f"{key}: {name} becomes bfloat16, whose range needs no loss scaling")
    draft.put("quantization.compute_dtype", node, DTYPES[name], f"written {key}")


def devices(draft: Draft) -> None:
    """Say that several devices multiply a batch, where the file speaks of them."""
    spoken = next((n for n in ("fsdp", "deepspeed", "fsdp_config") if draft.speaks_of(n)), None)
    if spoken and draft.devices == 1:
        draft.remark(
            f"{spoken}: it ran on several devices, each with a batch of its own: give their "
            "number with --devices to keep what a step learns from"
        )


def bits(draft: Draft) -> None:
    """load_in_4bit and load_in_8bit; neither is 16 bits."""
    four, eight = draft.take("load_in_4bit"), draft.take("load_in_8bit")
    if four is not None and four.value is True:
        draft.put("quantization.bits", four, 4, "written load_in_4bit")
    elif eight is not None and eight.value is True:
        draft.put("quantization.bits", eight, 8, "written load_in_8bit")
    else:
        draft.default("quantization.bits", 16, "neither load_in_4bit nor load_in_8bit is set")
    for theirs, ours in foreign.FLAT.items():
        if ours in ("quantization.quant_type", "quantization.double_quant"):
            draft.move(theirs, ours)


def chat_template(draft: Draft, key: str) -> None:
    """A built-in template by their name for it, a text or a file; else the tokenizer's own."""
    node = draft.take(key)
    if node is None:
        return
    known: Any = foreign.BY_KEY["model.chat_template"]
    name = str(node.value)
    ours = known.get(name, name.removesuffix(".default"))
    if ours is None:
        return
    if ours in templates.ENDS or templates.is_text(name) or templates.is_file(name):
        draft.put("model.chat_template", node, ours, f"written {key}")
    else:
        draft.remark(f"{key}: {name} is no built-in of qtune: the tokenizer's own template is used")


def trackers(value: Any) -> Any:
    """Those of their trackers that are here; None for none."""
    names = value if isinstance(value, list) else str(value).split(",")
    return [name for each in names if (name := str(each).strip()) in TRACKERS] or None


def by_steps(draft: Draft, theirs: str, ours: str) -> None:
    """A number of steps; shares of a run and switches stay for the list of what is left."""
    node = draft.peek(theirs)
    if node is not None and type(node.value) is int and node.value > 0:
        draft.move(theirs, ours)
