"""Unsloth: the YAML of its command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.draft import QUIET
from qtune.recipe.importing.refusing import WHOLE, refuse

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft

NAME = "Unsloth"
_FORMATS = {"alpaca": "alpaca", "chatml": "messages", "sharegpt": "sharegpt", "raw": "text"}
_LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
_REST = (
    ("finetune_vision_layers", "finetune_language_layers", "vision_all_linear"),
    ("finetune_attention_modules", "finetune_mlp_modules"),
)


def fill(draft: Draft) -> None:
    """Every key of the command line's YAML that has a counterpart."""
    kind = draft.peek("training.training_type")
    if kind is not None and kind.value == "full":
        refuse(kind, "training_type: full: trains every weight", WHOLE)
    draft.leave("training.training_type", "not needed", "method.name is lora without being told")
    draft.move("model", "model.name_or_path")
    if not draft.move("training.load_in_4bit", "quantization.bits", {True: 4, False: 16}):
        draft.default("quantization.bits", 4)
    adapter(draft, "lora.", (64, 16, 0.0))
    for key in (*_REST[0], *_REST[1]):
        draft.leave(f"lora.{key}", "not needed", "lora.target_modules names what is adapted")
    _data(draft)
    _training(draft)
    on = [name for name in ("wandb", "tensorboard") if draft.value(f"logging.enable_{name}")]
    if on:
        draft.default("logging.report_to", on, "written logging.enable_...")


def adapter(draft: Draft, own: str, defaults: tuple[int, int, float]) -> None:
    """PEFT's keys below a table of theirs; `defaults` of rank, alpha and dropout."""
    names = (("lora_r", "rank"), ("lora_alpha", "alpha"), ("lora_dropout", "dropout"))
    for (theirs, ours), default in zip(names, defaults, strict=True):
        if not draft.move(f"{own}{theirs}", f"method.{ours}"):
            draft.default(f"method.{ours}", default)
    draft.move(f"{own}target_modules", "method.target_modules", targets)
    bias = draft.peek(f"{own}bias")
    if bias is not None and bias.value == "none":
        draft.leave(f"{own}bias", "not needed", QUIET)
    for key in ("use_rslora", "use_dora"):
        draft.move(f"{own}{key}", f"method.{key}", {False: None})


def targets(value: Any) -> Any:
    """A list, from a list or from names with commas; every linear is all-linear."""
    names = value if isinstance(value, list) else str(value).split(",")
    names = [str(name).strip() for name in names]
    return "all-linear" if {*names} >= _LINEARS or names == ["all-linear"] else names


def _data(draft: Draft) -> None:
    shape = _FORMATS.get(str(draft.part("data.format_type", "auto")).lower(), "auto")
    found = []
    if (node := draft.take("data.dataset")) is not None:
        found.append((node, {"path": node.value, "format": shape}))
    if (node := draft.take("data.local_dataset")) is not None:
        files = node.plain() if isinstance(node.value, list) else [node.value]
        found += [(node, {"path": str(file), "format": shape}) for file in files]
    rows.put_sources(draft, "data.train", found, "written data")
    words = {True: "assistant", False: "all"}
    if not draft.move("training.train_on_completions", "loss.train_on", words):
        draft.default("loss.train_on", "all")
    if not draft.move("training.max_seq_length", "data.max_length"):
        draft.default("data.max_length", 2048)
    draft.default("data.overlong", "truncate_end", f"{NAME} cuts longer rows")
    draft.move("training.packing", "data.packing", {False: None})


def _training(draft: Draft) -> None:
    own = "training."
    keys = (f"{own}batch_size", f"{own}gradient_accumulation_steps")
    shared.batch(draft, *keys, defaults=(2, 4))
    shared.packed(draft)
    draft.default("optim.name", "adamw_8bit")
    draft.default("optim.lr_scheduler_type", "linear")
    draft.default("optim.max_grad_norm", 1.0)
    for theirs, ours, default in (
        ("learning_rate", "optim.learning_rate", 2e-4),
        ("weight_decay", "optim.weight_decay", 0.01),
        ("warmup_steps", "optim.warmup_steps", 5),
        ("random_seed", "train.seed", 3407),
    ):
        if not draft.move(f"{own}{theirs}", ours):
            draft.default(ours, default)
    steps = draft.take(f"{own}max_steps")
    if steps is not None and steps.value:
        draft.put("train.max_steps", steps, steps.value, f"written {own}max_steps")
        draft.leave(f"{own}num_epochs", "not needed", "max_steps wins over it")
    elif not draft.move(f"{own}num_epochs", "train.num_train_epochs"):
        draft.default("train.num_train_epochs", 3)
    shared.by_steps(draft, f"{own}save_steps", "checkpoint.steps")
    draft.move(f"{own}output_dir", "train.output_dir")
