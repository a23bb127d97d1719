"""torchtune's YAML of components."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtune.recipe.files import exists, expand
from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.facts import SUPERVISED
from qtune.recipe.importing.refusing import WHOLE, refuse

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft

NAME = "torchtune"
_ATTENTION = {"output_proj": "o_proj"}
_MLP = ["gate_proj", "up_proj", "down_proj"]
# Phi 3's checkpoint holds query, key and value in one linear, and gate and up in another.
_FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
}
# component -> (hub id, format, learns the prompt too without being told)
_DATA = {
    "alpaca_dataset": ("tatsu-lab/alpaca", "alpaca", True),
    "alpaca_cleaned_dataset": ("yahma/alpaca-cleaned", "alpaca", True),
    "slimorca_dataset": ("Open-Orca/SlimOrca-Dedup", "sharegpt", False),
    "chat_dataset": (None, "messages", False),
    "instruct_dataset": (None, "prompt-completion", False),
    "text_completion_dataset": (None, "text", True),
}
_MASKS = {
    "train_on_all": "all",
    "train_on_assistant": "assistant",
    "train_on_last": "last_assistant",
    True: "all",
    False: "assistant",
}
_DOWNLOAD = re.compile(r"tune download (\S+) --output-dir (\S+)")


def fill(draft: Draft, text: str = "") -> None:
    """Every key that has a counterpart; `text` is the file's, whose comments name the download."""
    component = _refuse(draft)
    _model(draft, text)
    _bits(draft, component)
    _adapter(draft, component)
    _data(draft)
    shared.batch(draft, "batch_size", "gradient_accumulation_steps", defaults=(1, 1))
    shared.packed(draft)
    shared.optimizer(draft, "optimizer._component_", default="adamw")
    _rates(draft)
    _schedule(draft)
    if not draft.move("epochs", "train.num_train_epochs"):
        draft.default("train.num_train_epochs", 1)
    draft.move("seed", "train.seed")
    draft.move("shuffle", "data.shuffle", {True: None})
    draft.move("output_dir", "train.output_dir")
    draft.move("log_every_n_steps", "logging.steps")
    if draft.has("data.eval"):
        draft.move("run_val_every_n_steps", "eval.steps")
    logger = str(draft.part("metric_logger._component_", "")).rpartition(".")[2].lower()
    known = [name for name in ("wandb", "tensorboard", "mlflow") if logger.startswith(name)]
    if known:
        draft.default("logging.report_to", known, "written metric_logger")


def _refuse(draft: Draft) -> str:
    """The model's component, when it is LoRA trained on answers."""
    loss = draft.peek("loss._component_")
    for name in ("rlhf", "DPO", "PPO", "GRPO"):
        if loss is not None and name in str(loss.value):
            refuse(loss, f"loss: {loss.value}: trains on preferences or rewards", SUPERVISED)
    if (teacher := draft.peek("teacher_model._component_")) is not None:
        hint = "import the student's recipe, and write loss: {teacher: MODEL}"
        refuse(teacher, "teacher_model: distils another model", hint)
    node = draft.take("model._component_")
    if node is None:
        refuse(
            draft.root, "no model._component_: evaluates, generates or quantises", "qtune --help"
        )
    component = str(node.value)
    if "lora" not in component.rpartition(".")[2]:
        refuse(node, f"model: {component}: trains every weight", WHOLE)
    return component


def _model(draft: Draft, text: str) -> None:
    """The folder of the checkpoint; where it is not here, the hub id it was downloaded from."""
    node = draft.take("checkpointer.checkpoint_dir")
    if node is None:
        return
    folder = str(node.value).rstrip("/")
    for repository, place in _DOWNLOAD.findall(text):
        if place.rstrip("/") == folder and not exists(expand(folder)):
            draft.put("model.name_or_path", node, repository, f"downloaded to {folder}")
            return
    draft.put("model.name_or_path", node, folder, "written checkpointer.checkpoint_dir")


def _bits(draft: Draft, component: str) -> None:
    base = draft.value("model.quantize_base", False)
    if "qlora" in component or base:
        draft.default("quantization.bits", 4, f"the component {component.rpartition('.')[2]}")
        draft.default("quantization.double_quant", True, f"{NAME}'s NF4 always has it")
    else:
        draft.default("quantization.bits", 16, "a LoRA component that is not quantised")
    shared.dtype(draft, "dtype")


def _adapter(draft: Draft, component: str) -> None:
    for theirs, ours in (("lora_rank", "rank"), ("lora_alpha", "alpha"), ("use_dora", "use_dora")):
        draft.move(f"model.{theirs}", f"method.{ours}")
    draft.default("method.rank", 8)
    draft.default("method.alpha", 16)
    if not draft.move("model.lora_dropout", "method.dropout"):
        draft.default("method.dropout", 0.0)
    node = draft.peek("model.lora_attn_modules")
    names = [_ATTENTION.get(name, name) for name in draft.named("model.lora_attn_modules")]
    note = "written lora_attn_modules"
    if draft.value("model.apply_lora_to_mlp"):
        names, note = [*names, *_MLP], f"{note} and apply_lora_to_mlp"
    if draft.value("model.apply_lora_to_output"):
        names, note = [*names, "lm_head"], f"{note} and apply_lora_to_output"
    if any(family in component for family in ("phi3", "phi4")):
        fused = list(dict.fromkeys(_FUSED.get(name, name) for name in names))
        if fused != names:
            draft.remark(
                "Phi's checkpoint holds query, key and value in one linear, qkv_proj, and gate "
                "and up in gate_up_proj: the adapters there are theirs together"
            )
        names = fused
    if node is not None and names:
        draft.put("method.target_modules", node, names, note)


def _data(draft: Draft) -> None:
    learnt = [
        _sources(draft, prefix, ours)
        for prefix, ours in (("dataset", "data.train"), ("dataset_val", "data.eval"))
    ]
    for key in ("masking_strategy", "train_on_input"):
        draft.move(f"dataset.{key}", "loss.train_on", _masked)
        draft.leave(f"dataset_val.{key}", "not needed", "what is learnt is measured")
    draft.default("loss.train_on", learnt[0] or "assistant", f"{NAME}'s default for these rows")
    draft.move("dataset.packed", "data.packing", {False: None})
    draft.leave("dataset_val.packed", "not needed", "evaluation rows are packed like the others")
    if not draft.move("tokenizer.max_seq_len", "data.max_length"):
        draft.remark(
            "tokenizer.max_seq_len is empty there, and no row is cut: here rows over "
            "data.max_length (2048) are left out and counted"
        )
    else:
        draft.default("data.overlong", "truncate_end", f"{NAME} cuts longer rows")
    for key in ("path", "merges_file", "_component_"):
        draft.leave(f"tokenizer.{key}", "not needed", "read from the model's own files")


def _sources(draft: Draft, prefix: str, ours: str) -> str | None:
    """The source of a component, and what it learns without being told."""
    node = draft.take(f"{prefix}._component_")
    if node is None:
        return None
    name = str(node.value).rpartition(".")[2]
    path, shape, whole = _DATA.get(name, (None, "auto", False))
    if name not in _DATA:
        draft.remark(f"{prefix}: {name}: see that the columns and the prompt are right")
    path = draft.part(f"{prefix}.source", path)
    files = draft.part(f"{prefix}.data_files")
    path = files if isinstance(files, str) and path in ("json", "csv", "text", "parquet") else path
    if draft.part(f"{prefix}.conversation_style") == "sharegpt":
        shape = "sharegpt"
    column = draft.part(f"{prefix}.conversation_column") or draft.part(f"{prefix}.column")
    field = {"messages": "messages", "sharegpt": "conversations", "text": "text"}.get(shape)
    columns: dict[str, Any] = {}
    if field and column and column != field:
        columns[field] = column
    for theirs, own in draft.take_below(f"{prefix}.column_map").items():
        columns[{"input": "prompt", "output": "completion"}.get(theirs, theirs)] = own.value
    split = draft.part(f"{prefix}.split")
    table = {"path": path, "format": shape, "columns": columns or None, "split": split}
    rows.put_sources(draft, ours, [(node, table)], f"written {prefix}")
    return "all" if whole else "assistant"


def _masked(value: Any) -> str | None:
    return _MASKS.get(value) if isinstance(value, str | bool) else None


def _rates(draft: Draft) -> None:
    for theirs, ours in (("lr", "learning_rate"), ("betas", "betas"), ("eps", "eps")):
        draft.move(f"optimizer.{theirs}", f"optim.{ours}")
    if not draft.move("optimizer.weight_decay", "optim.weight_decay"):
        draft.default("optim.weight_decay", 0.01, "torch's default")
    if not draft.move("clip_grad_norm", "optim.max_grad_norm"):
        draft.default("optim.max_grad_norm", shared.ENDS_WHOLE, "clip_grad_norm is empty: no clip")


def _schedule(draft: Draft) -> None:
    node = draft.take("lr_scheduler._component_")
    if node is None:
        draft.default("optim.lr_scheduler_type", "constant", "no lr_scheduler")
        draft.default("optim.warmup_steps", 0, "no lr_scheduler")
        return
    name = str(node.value).rpartition(".")[2]
    if "cosine" not in name:
        draft.remark(f"lr_scheduler: {name} is not in qtune: cosine takes its place")
    draft.put("optim.lr_scheduler_type", node, "cosine", "written lr_scheduler")
    if not draft.move("lr_scheduler.num_warmup_steps", "optim.warmup_steps"):
        draft.default("optim.warmup_steps", 0)
