"""Which tool a table of keys was written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.recipe.keys import SECTIONS

if TYPE_CHECKING:
    from qtune.recipe.node import Node

KNOWN = "axolotl, TRL, LLaMA-Factory, torchtune, litgpt, mlx-lm, Unsloth, qlora.py"
_MARKS = {
    "LLaMA-Factory": {
        *("stage", "finetuning_type", "cutoff_len", "template", "export_dir", "quantization_bit"),
        *("dataset_dir", "lora_target", "pref_beta", "preprocessing_num_workers", "infer_backend"),
    },
    "axolotl": {
        *("base_model", "sequence_len", "micro_batch_size", "adapter", "val_set_size", "datasets"),
        *("sample_packing", "lora_target_linear", "num_epochs", "rl", "pretraining_dataset"),
    },
    "mlx-lm": {
        *("iters", "lora_parameters", "fine_tune_type", "adapter_path", "steps_per_eval"),
        *("steps_per_report", "val_batches", "num_layers", "grad_checkpoint", "mask_prompt"),
    },
    "TRL": {
        *("model_name_or_path", "use_peft", "dataset_name", "dataset_mixer", "dataset_mixture"),
        *("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"),
        *("lora_r", "lora_target_modules", "learning_rate", "output_dir", "load_in_4bit"),
    },
}
_UNSLOTH = {"model", "data", "training", "lora", "logging"}


def tool_of(root: Node) -> str:
    """The tool's name; `UsageError` for what is no training recipe of any of them."""
    table = root.value
    name = root.source.name
    if not isinstance(table, dict):
        raise UsageError("no table of keys, so no training recipe", place=name)
    inner = [set(node.value) for node in table.values() if isinstance(node.value, dict)]
    if any("_component_" in keys for keys in inner):
        return "torchtune"
    if any("class_path" in keys for keys in inner) or "lora_query" in table:
        return "litgpt"
    if {"training", "lora"} & table.keys() and table.keys() <= _UNSLOTH:
        return "Unsloth"
    scores = {tool: len(marks & table.keys()) for tool, marks in _MARKS.items()}
    best = max(scores, key=lambda tool: scores[tool])
    if scores[best] >= 2:
        return best
    raise UsageError(*_nothing(root, table))


def _nothing(root: Node, table: dict[str, Node]) -> tuple[str]:
    ours = [key for key in table if key in SECTIONS or key == "extends"]
    if ours and len(ours) == len(table):
        raise UsageError(
            "a recipe of qtune already", place=root.source.name, hint="check it: qtune validate"
        )
    shown = ", ".join(list(table)[:4])
    raise UsageError(
        f"no training recipe: its keys ({shown}{', ...' if len(table) > 4 else ''}) are of no "
        "tool that is known",
        place=root.source.name,
        hint=f"known: {KNOWN}",
    )
