"""litgpt's `finetune_lora` YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.families import linears_of
from qtune.recipe.importing.refusing import WHOLE, refuse

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft

NAME = "litgpt"
_PARTS = ("query", "key", "value", "projection", "mlp", "head")
_ON = {"query": True, "value": True}  # what litgpt adapts without being told
_DATA = {
    "Alpaca": ("yahma/alpaca-cleaned", "alpaca"),
    "Alpaca2k": ("mhenrichsen/alpaca_2k_test", "alpaca"),
    "AlpacaGPT4": ("vicgalle/alpaca-gpt4", "alpaca"),
    "Dolly": ("databricks/databricks-dolly-15k", "auto"),
    "JSON": (None, "alpaca"),
    "TextFiles": (None, "text"),
}
_NO_FLOOR = "litgpt reads it when it trains from scratch only: its LoRA anneals to zero"


def fill(draft: Draft) -> None:
    """Every key that has a counterpart."""
    _refuse(draft)
    _model(draft)
    _bits(draft)
    _adapter(draft)
    _data(draft)
    _batch(draft)
    _optimizer(draft)
    _length(draft)
    draft.move("seed", "train.seed")
    draft.move("out_dir", "train.output_dir")
    draft.move("train.save_interval", "checkpoint.steps")
    draft.move("train.log_interval", "logging.steps")
    draft.move("eval.interval", "eval.steps")
    draft.move("eval.initial_validation", "eval.at_start")
    for key in ("max_iters", "max_new_tokens", "final_validation"):
        why = "all held-out rows are measured, at the end too; eval.generate_rows adds answers"
        draft.leave(f"eval.{key}", "not needed", why)
    draft.move("logger_name", "logging.report_to", shared.trackers)


def _refuse(draft: Draft) -> None:
    if "lora_r" in draft or any(key.startswith("lora_") for key in draft.names):
        return
    anchor = draft.peek("checkpoint_dir") or draft.root
    refuse(anchor, "no lora_ key: trains every weight, or a litgpt adapter", WHOLE)


def _model(draft: Draft) -> None:
    """checkpoints/org/name is litgpt's copy of a hub id, in a layout of its own."""
    node = draft.take("checkpoint_dir")
    if node is None:
        return
    parts = str(node.value).rstrip("/").split("/")
    name = "/".join(parts[-2:]) if "checkpoints" in parts[:-2] else str(node.value)
    draft.put("model.name_or_path", node, name, "written checkpoint_dir")


def _bits(draft: Draft) -> None:
    node = draft.take("quantize")
    if node is None:
        draft.default("quantization.bits", 16, "no quantize: not quantised")
    elif str(node.value).startswith("bnb.int8"):
        draft.put("quantization.bits", node, 8, "written quantize")
    else:
        kind, _, double = str(node.value).removeprefix("bnb.").partition("-")
        draft.put("quantization.bits", node, 4, "written quantize")
        draft.put("quantization.quant_type", node, kind, "written quantize")
        draft.put("quantization.double_quant", node, double == "dq", "written quantize")
    shared.dtype(draft, "precision")


def _adapter(draft: Draft) -> None:
    for theirs, ours, default in (("r", "rank", 8), ("alpha", "alpha", 16)):
        if not draft.move(f"lora_{theirs}", f"method.{ours}"):
            draft.default(f"method.{ours}", default)
    if not draft.move("lora_dropout", "method.dropout"):
        draft.default("method.dropout", 0.05)
    names = linears_of(str(draft.got("model.name_or_path", "")))
    anchor = next((n for part in _PARTS if (n := draft.peek(f"lora_{part}"))), draft.root)
    on = {part: draft.value(f"lora_{part}", _ON.get(part, False)) is True for part in _PARTS}
    chosen = [name for part in _PARTS if on[part] for name in getattr(names, part)]
    targets = list(dict.fromkeys(chosen))
    said = ", ".join(f"lora_{part}" for part in _PARTS if on[part])
    draft.put("method.target_modules", anchor, targets, f"written {said}")
    apart = {on[part] for part in ("query", "key", "value")}
    if names.query == names.key and len(apart) > 1:
        draft.remark(
            f"the checkpoint holds query, key and value in one linear, {names.query[0]}: the "
            "adapter there is theirs together"
        )


def _data(draft: Draft) -> None:
    node = draft.take("data.class_path") or draft.peek("data")
    name = "Alpaca" if node is None else str(node.value).rpartition(".")[2]
    path, shape = _DATA.get(name, (None, "auto"))
    own = "data.init_args."
    path = draft.part(f"{own}json_path", path)
    path = draft.part(f"{own}train_data_path", path)
    if name not in _DATA:
        draft.remark(f"data: {name}: see that the columns and the prompt are right")
    asked = draft.take(f"{own}prompt_style")
    style = "alpaca" if asked is None and shape == "alpaca" else asked and asked.value
    if style == "alpaca":
        draft.put("model.chat_template", asked or draft.root, "alpaca", "the prompt of these rows")
    elif style is not None and style not in ("default", "none"):
        draft.remark(f"prompt_style: {style}: the tokenizer's own template is used")
    table = {"path": path or name, "format": shape}
    rows.put_sources(draft, "data.train", [(node or draft.root, table)], "written data")
    if not draft.move(f"{own}val_split_fraction", "data.val_size"):
        draft.remark(f"data: {name} holds out a part by default: data.val_size is the share here")
    masks = {True: "assistant", False: "all"}
    if not draft.move(f"{own}mask_prompt", "loss.train_on", masks):
        draft.default("loss.train_on", "all")
    draft.leave(f"{own}seed", "not in qtune", "train.seed is the seed of the split too")
    if draft.move("train.max_seq_length", "data.max_length"):
        draft.default("data.overlong", "truncate_end", f"{NAME} cuts longer rows")


def _batch(draft: Draft) -> None:
    """The global batch is that of all devices together."""
    draft.leave("train.micro_batch_size", "left to the plan", "train.batch_size stays")
    if not draft.move("train.global_batch_size", "train.batch_size"):
        draft.default("train.batch_size", 16)
    draft.value("devices")


def _optimizer(draft: Draft) -> None:
    quantised = draft.got("quantization.bits") != 16
    node = draft.take("optimizer.class_path")
    if quantised:  # litgpt swaps torch's AdamW for bitsandbytes' paged one
        draft.default("optim.name", "paged_adamw_32bit", f"{NAME}'s on a quantised base")
    elif node is not None:
        draft.put("optim.name", node, "adamw", "written optimizer")
    own = "optimizer.init_args."
    for key in (f"{own}lr", "train.learning_rate"):
        draft.move(key, "optim.learning_rate")
    for key in ("weight_decay", "betas", "eps"):
        draft.move(f"{own}{key}", f"optim.{key}")
    draft.default("optim.lr_scheduler_type", "cosine", f"{NAME}'s only schedule")
    if not draft.move("train.lr_warmup_steps", "optim.warmup_steps"):
        draft.default("optim.warmup_steps", 100)
    draft.leave("train.min_lr", "not needed", _NO_FLOOR)
    clip = "optim.max_grad_norm"
    if not draft.move("train.max_norm", clip):
        draft.default(clip, shared.ENDS_WHOLE, f"{NAME}'s LoRA does not clip")


def _length(draft: Draft) -> None:
    if not draft.move("train.max_steps", "train.max_steps"):
        if not draft.move("train.epochs", "train.num_train_epochs"):
            draft.default("train.num_train_epochs", 5)
        return
    draft.leave(
        "train.epochs", "not needed", "the first end of the two counts: see train.max_steps"
    )
