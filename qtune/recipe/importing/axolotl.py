"""axolotl's YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.draft import Draft, Left, short
from qtune.recipe.importing.refusing import WHOLE, refuse, refuse_any, refuse_objective
from qtune.recipe.importing.trainer import run

if TYPE_CHECKING:
    from qtune.recipe.node import Node

NAME = "axolotl"
# type -> format of qtune; the built-in template of a prompt that axolotl writes itself.
_FORMATS = {
    "alpaca": ("alpaca", "alpaca"),
    "alpaca:chat": ("alpaca", "vicuna"),
    "alpaca_chat": ("alpaca", "vicuna"),
    "alpaca_chat.load_qa": ("alpaca", "vicuna"),
    "chat_template": ("messages", None),
    "sharegpt": ("sharegpt", None),
    "completion": ("text", None),
    "pretrain": ("text", None),
    "oasst": ("auto", None),
}
_READ = {
    *("path", "type", "name", "split", "revision", "data_files", "field", "columns"),
    *("field_messages", "message_property_mappings", "message_field_role"),
    *("message_field_content", "field_instruction", "field_input", "field_output"),
}
_ANSWERING = {"assistant", "gpt", "model", "bot", "chatbot", "ai"}
_ROW_KEYS = {
    "ds_type": "read off the name of the file",
    "roles": "qtune knows the usual names of roles",
    "roles_to_train": "answers are learnt without being told",
    "train_on_eos": "the end of every learnt answer is learnt",
    "train_on_eot": "the end of every learnt answer is learnt",
    "chat_template": "model.chat_template is one for all sources",
    "drop_system_message": "system turns are part of what is asked",
    "conversation": "model.chat_template says how chats are written",
    "shards": "max_rows takes a part of the rows",
}


def fill(draft: Draft) -> None:
    """Every key that has a counterpart."""
    _refuse(draft)
    draft.move("base_model", "model.name_or_path")
    draft.move("base_model_config", "model.tokenizer")
    draft.move("tokenizer_config", "model.tokenizer")
    draft.move("revision_of_model", "model.revision")
    shared.bits(draft)
    shared.precision(draft, "torch_dtype")
    for name in ("quant_type", "use_double_quant"):
        ours = "quantization." + name.replace("use_", "")
        draft.move(f"bnb_config_kwargs.bnb_4bit_{name}", ours)
    _adapter(draft)
    _data(draft)
    _lengths(draft)
    shared.batch(draft, "micro_batch_size", "gradient_accumulation_steps", defaults=(1, 1))
    shared.optimizer(draft, "optimizer", default="adamw")
    shared.schedule(draft, "lr_scheduler", default="cosine")
    draft.move("cosine_min_lr_ratio", "optim.min_lr_ratio")
    shared.rates(draft, learning_rate=2e-4)
    shared.length(draft, epochs=1.0, key="num_epochs")
    run(draft)
    draft.move("loss_watchdog_threshold", "watchdog.loss_limit")
    if draft.has("watchdog.loss_limit"):
        draft.move("loss_watchdog_patience", "watchdog.patience")
        draft.default("watchdog.patience", 3)
    _trackers(draft)
    _remark(draft)


def _refuse(draft: Draft) -> None:
    refuse_objective(draft, "rl")
    for key in ("reward_model", "process_reward_model"):
        node = draft.peek(key)
        if node is not None and node.value is True:
            refuse(node, f"{key}: trains a reward model", "qtune learns from answers to imitate")
    adapter = draft.peek("adapter")
    if adapter is None:
        anchor = draft.peek("base_model")
        assert anchor is not None
        refuse(anchor, "no adapter is named: trains every weight", WHOLE)
    if adapter.value not in ("lora", "qlora"):
        hint = "qtune methods lists the methods; write method: {name: ...} by hand"
        refuse(adapter, f"adapter: {adapter.value}: is not LoRA", hint)
    refuse_any(draft, ("diffusion",), "trains a diffusion model", "qtune trains on next tokens")
    draft.leave("adapter", "not needed", "method.name is lora without being told")


def _adapter(draft: Draft) -> None:
    draft.move("lora_r", "method.rank")
    draft.move("lora_alpha", "method.alpha")
    if not draft.move("lora_dropout", "method.dropout"):
        draft.default("method.dropout", 0.0)
    linear = draft.take("lora_target_linear")
    if linear is not None and linear.value is True:
        draft.put("method.target_modules", linear, "all-linear", "written lora_target_linear")
        why = "lora_target_linear takes every linear layer"
        draft.leave("lora_target_modules", "not needed", why)
    else:
        draft.move("lora_target_modules", "method.target_modules")
    draft.move("lora_modules_to_save", "method.modules_to_save")
    draft.move("peft_layers_to_transform", "method.layers_to_transform")
    draft.move("peft_use_rslora", "method.use_rslora")
    draft.move("peft_use_dora", "method.use_dora")
    draft.move("loraplus_lr_ratio", "method.loraplus_ratio")


def _data(draft: Draft) -> None:
    templates: set[str | None] = set()
    for theirs, ours in (("datasets", "data.train"), ("test_datasets", "data.eval")):
        node = draft.take(theirs)
        items = node.value if node is not None and isinstance(node.value, list) else []
        found = [_source(draft, item, templates) for item in items]
        rows.put_sources(draft, ours, [each for each in found if each], f"written {theirs}")
    if draft.has("loss.train_on"):
        draft.leave("train_on_inputs", "not needed", "roles_to_train learns all of a chat")
        if len(draft.got("data.train")) > 1:
            draft.remark("roles_to_train of one source: loss.train_on: all counts for every one")
    _plain_text(draft)
    shared.chat_template(draft, "chat_template")
    [template] = templates if len(templates) == 1 else [None]
    if template is not None and not draft.has("model.chat_template"):
        draft.default("model.chat_template", template, f"the prompt of type {template} rows")
    if not draft.move("train_on_inputs", "loss.train_on", {True: "all", False: "assistant"}):
        draft.default("loss.train_on", "assistant")
    if not draft.has("data.eval"):
        draft.move("val_set_size", "data.val_size", {0: None})
    draft.move("dataset_exact_deduplication", "data.deduplicate")


def _plain_text(draft: Draft) -> None:
    """pretraining_dataset: texts, learnt whole."""
    node = draft.take("pretraining_dataset")
    if node is None:
        return
    items = node.value if isinstance(node.value, list) else [node]
    tables = [
        item.plain() if isinstance(item.value, dict) else {"path": item.value} for item in items
    ]
    found = [
        (item, {"path": each.get("path"), "format": "text", "config": each.get("name")})
        for item, each in zip(items, tables, strict=True)
    ]
    rows.put_sources(draft, "data.train", found, "written pretraining_dataset")
    draft.default("loss.train_on", "all", "texts are learnt whole")


def _source(draft: Draft, item: Node, templates: set[str | None]) -> tuple[Node, rows.Table] | None:
    told = item.plain()
    if not isinstance(told, dict):
        return None
    shape, template = _format(draft, told)
    templates.add(template)
    path, files = told.get("path"), told.get("data_files")
    chosen = files[0] if isinstance(files, list) and files else files
    if isinstance(chosen, str) and path in ("json", "csv", "parquet", "text"):
        path = chosen
    elif chosen is not None:
        draft.remark(
            f"datasets: of {path} only {chosen} was read: download it, and write its path "
            "in data.train"
        )
    learnt = _learnt(draft, item, told)
    for key in told.keys() - _READ - learnt:
        why = _ROW_KEYS.get(key, "a source has no such setting")
        below = item.child(key) or item
        draft.left.append(
            Left(f"datasets.{key}", short(told[key]), below.line, "not in qtune", why)
        )
    table = {"path": path, "format": shape, "columns": _columns(told, shape) or None}
    own = {"config": told.get("name"), "split": told.get("split"), "revision": told.get("revision")}
    return item, {**table, **own}


def _learnt(draft: Draft, item: Node, told: dict[str, Any]) -> set[str]:
    """What a source says of the turns that are learnt; the keys that were taken or told of."""
    taken: set[str] = set()
    roles = told.get("roles_to_train")
    names = {str(role) for role in (roles if isinstance(roles, list) else [roles]) if role}
    node = item.child("roles_to_train") or item
    if names & {"all", "human", "user"}:
        draft.put("loss.train_on", node, "all", "written roles_to_train")
        taken.add("roles_to_train")
    elif not names <= _ANSWERING:
        draft.remark(
            f"roles_to_train {roles} (line {node.line}): loss.train_on learns the assistant's "
            "turns or all"
        )
        taken.add("roles_to_train")
    end = told.get("train_on_eos")
    if end in ("none", "last"):
        draft.remark(
            f"train_on_eos: {end} (line {(item.child('train_on_eos') or item).line}): here the "
            "end of every learnt turn is learnt"
        )
        taken.add("train_on_eos")
    return taken


def _format(draft: Draft, told: dict[str, Any]) -> tuple[str, str | None]:
    """Our format of a type, and the prompt that the type itself writes."""
    kind = told.get("type")
    if isinstance(kind, dict):
        draft.remark("datasets: a type of your own: see that the columns and the prompt are right")
        return "auto", None
    if kind == "chat_template" and _dialect(told) == "value":
        return "sharegpt", None
    if str(kind) in _FORMATS:
        return _FORMATS[str(kind)]
    if kind is not None:
        draft.remark(f"datasets: type {kind}: qtune reads the format off the columns instead")
    return "auto", None


def _dialect(told: dict[str, Any]) -> str:
    """What a turn's text is called: content, or value as in ShareGPT."""
    names = told.get("message_property_mappings")
    named = names.get("content") if isinstance(names, dict) else told.get("message_field_content")
    return str(named or "content")


def _columns(told: dict[str, Any], shape: str) -> dict[str, str]:
    """Columns with other names than the format's."""
    field = {"sharegpt": "conversations", "messages": "messages"}.get(shape)
    found = {field: told.get("field_messages")} if field else {}
    if shape == "text":
        found["text"] = told.get("field")
    if shape == "alpaca":
        found |= {n: told.get(f"field_{n}") for n in ("instruction", "input", "output")}
    return {name: str(column) for name, column in found.items() if column and column != name}


def _lengths(draft: Draft) -> None:
    if not draft.move("sequence_len", "data.max_length"):
        draft.default("data.max_length", 512)
    words = {"truncate": "truncate_end", "raise": "error"}
    draft.move("excess_length_strategy", "data.overlong", words)
    draft.move("sample_packing", "data.packing", {False: None})


def _trackers(draft: Draft) -> None:
    named = {"use_wandb": "wandb", "use_tensorboard": "tensorboard", "use_mlflow": "mlflow"}
    on = [key for key in named if (node := draft.peek(key)) is not None and node.value is True]
    project = draft.peek("wandb_project")
    if on:
        first = draft.take(on[0])
        assert first is not None
        names = [named[key] for key in on]
        draft.put("logging.report_to", first, names, f"written {' and '.join(on)}")
    elif project is not None:
        draft.put("logging.report_to", project, ["wandb"], "written wandb_project")
    for key in named:
        draft.value(key)


def _remark(draft: Draft) -> None:
    shared.packed(draft)
    if draft.got("model.chat_template") == "alpaca":
        draft.remark(
            "the built-in alpaca template puts a row's input behind its instruction; axolotl "
            "gives it a heading of its own"
        )
