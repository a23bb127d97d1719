"""LLaMA-Factory's YAML; its data sets are named in a dataset_info.json beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.recipe.files import exists
from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.refusing import WHOLE, refuse, refuse_any, refuse_objective
from qtune.recipe.importing.trainer import trainer

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft
    from qtune.recipe.node import Node

NAME = "LLaMA-Factory"
_SUPERVISED = ("sft", "pt")
# Of the table that comes with LLaMA-Factory, where it is not at hand: names that are hub ids.
_SHIPPED = {
    "alpaca_en": "llamafactory/alpaca_en",
    "alpaca_zh": "llamafactory/alpaca_zh",
    "alpaca_gpt4_en": "llamafactory/alpaca_gpt4_en",
    "alpaca_gpt4_zh": "llamafactory/alpaca_gpt4_zh",
    "open_platypus": "garage-bAInd/Open-Platypus",
    "codealpaca": "sahil2801/CodeAlpaca-20k",
    "slimorca": "Open-Orca/SlimOrca",
    "ultrachat_200k": "HuggingFaceH4/ultrachat_200k",
}
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


def fill(draft: Draft) -> None:
    """Every key that has a counterpart."""
    _refuse(draft)
    draft.move("model_name_or_path", "model.name_or_path")
    draft.move("model_revision", "model.revision", {"main": None})
    _bits(draft)
    shared.precision(draft, "compute_dtype")
    _adapter(draft)
    stage = draft.peek("stage")
    plain = stage is not None and stage.value == "pt"
    _data(draft, plain=plain)
    shared.chat_template(draft, "template")
    _loss(draft, plain=plain)
    if not draft.move("cutoff_len", "data.max_length"):
        draft.default("data.max_length", 2048)
    draft.default("data.overlong", "truncate_end", f"{NAME} cuts longer rows")
    for key in ("neat_packing", "packing"):
        draft.move(key, "data.packing", {False: None})
    trainer(draft, learning_rate=5e-5)
    shared.packed(draft)


def _refuse(draft: Draft) -> None:
    stage = draft.peek("stage")
    if stage is not None and stage.value not in _SUPERVISED:
        refuse_objective(draft, "stage")
    merge = "folds an adapter into its base, and trains nothing"
    if stage is None:
        refuse_any(draft, ("export_dir",), merge, "qtune merge does that with a run of qtune's")
    train = draft.peek("do_train")
    if (train is not None and train.value is False) or (train is None and "do_predict" in draft):
        anchor = train or draft.peek("do_predict")
        assert anchor is not None
        refuse(anchor, "trains nothing: only measures", "qtune eval measures a run or a model")
    kind = draft.peek("finetuning_type")
    if kind is not None and kind.value == "full":
        refuse(kind, "finetuning_type: full: trains every weight", WHOLE)
    if kind is not None and kind.value != "lora":
        hint = "qtune methods lists the methods; write method: {name: ...} by hand"
        refuse(kind, f"finetuning_type: {kind.value}: is not LoRA", hint)


def _bits(draft: Draft) -> None:
    node = draft.peek("quantization_bit")
    if node is None:
        draft.default("quantization.bits", 16, "no quantization_bit: not quantised")
        return
    if node.value not in (4, 8):
        hint = "the base is held in 4, 8 or 16 bits: set quantization_bit: 4"
        refuse(node, f"quantization_bit: {node.value}: not in qtune", hint)
    draft.move("quantization_bit", "quantization.bits")
    draft.move("quantization_type", "quantization.quant_type")
    draft.move("double_quantization", "quantization.double_quant")


def _adapter(draft: Draft) -> None:
    if not draft.move("lora_rank", "method.rank"):
        draft.default("method.rank", 8)
    if not draft.move("lora_alpha", "method.alpha"):
        rank = draft.number("lora_rank", 8)
        draft.default("method.alpha", 2 * rank, f"{NAME}'s default, 2 x rank")
    if not draft.move("lora_dropout", "method.dropout"):
        draft.default("method.dropout", 0.0)
    draft.move("lora_target", "method.target_modules", _targets)
    draft.move("additional_target", "method.modules_to_save", _names)
    draft.move("use_rslora", "method.use_rslora")
    draft.move("use_dora", "method.use_dora")
    draft.move("loraplus_lr_ratio", "method.loraplus_ratio")


def _names(value: Any) -> list[str]:
    names = value if isinstance(value, list) else str(value).split(",")
    return [str(name).strip() for name in names]


def _targets(value: Any) -> Any:
    names = _names(value)
    return "all-linear" if "all" in names else names


def _data(draft: Draft, *, plain: bool) -> None:
    folder = str(draft.part("dataset_dir", "data"))
    most = draft.part("max_samples")
    for theirs, ours in (("dataset", "data.train"), ("eval_dataset", "data.eval")):
        node = draft.take(theirs)
        if node is None:
            continue
        table = _table(node, folder)
        found = [(node, _source(draft, name, folder, table)) for name in _names(node.value)]
        for _, source in found:
            source["max_rows"] = most
            if plain:
                source.update(format="text")
        own = f"written {theirs}" if most is None else f"written {theirs} and max_samples"
        rows.put_sources(draft, ours, found, own)
    if not draft.has("data.eval"):
        draft.move("val_size", "data.val_size", {0: None})
    draft.move("streaming", "data.streaming", {False: None})


def _table(node: Node, folder: str) -> dict[str, Any]:
    """dataset_info.json, in the working directory or beside the file; empty if it is not here."""
    for root in (Path(), node.source.folder):
        path = root / folder / "dataset_info.json"
        if exists(path):
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(told, dict):
                return told
    return {}


def _source(draft: Draft, name: str, folder: str, table: dict[str, Any]) -> rows.Table:
    told = table.get(name)
    if not isinstance(told, dict):
        return _unlisted(draft, name, folder)
    path = told.get("hf_hub_url") or f"{folder}/{told.get('file_name', name)}"
    shape = "sharegpt" if told.get("formatting") == "sharegpt" else "alpaca"
    if shape == "sharegpt" and (told.get("tags") or {}).get("content_tag") == "content":
        shape = "messages"
    own = told.get("columns") or {}
    if shape == "alpaca":
        columns = {_COLUMNS[key]: own[key] for key in _COLUMNS if key in own}
    else:
        field = "messages" if shape == "messages" else "conversations"
        columns = {field: own["messages"]} if own.get("messages", field) != field else {}
    columns = {field: column for field, column in columns.items() if field != column}
    part = {"config": told.get("subset"), "split": told.get("split")}
    return {"path": path, "format": shape, "columns": columns or None, **part}


def _unlisted(draft: Draft, name: str, folder: str) -> rows.Table:
    if name in _SHIPPED:
        return {"path": _SHIPPED[name]}
    draft.remark(
        f"dataset: {name} is a name in {folder}/dataset_info.json, which is not here: "
        f"see that its path is right"
    )
    return {"path": f"{folder}/{name}.json"}


def _loss(draft: Draft, *, plain: bool) -> None:
    if plain:
        draft.default("loss.train_on", "all", "stage: pt learns texts whole")
    else:
        draft.move("mask_history", "loss.train_on", {True: "last_assistant", False: None})
    if draft.has("loss.train_on") and not plain:
        draft.leave("train_on_prompt", "not needed", "mask_history wins over it")
    draft.move("train_on_prompt", "loss.train_on", {True: "all", False: "assistant"})
    draft.default("loss.train_on", "assistant")
