"""TRL's `trl sft` and the alignment handbook: one flat YAML of script, model and trainer keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.facts import SUPERVISED
from qtune.recipe.importing.refusing import WHOLE, refuse, refuse_any
from qtune.recipe.importing.trainer import trainer

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft
    from qtune.recipe.node import Node

NAME = "TRL"
_PREFERRED = ("beta", "max_prompt_length", "max_completion_length", "ref_model_init_kwargs")
_REWARDED = ("num_generations", "reward_model_path", "reward_funcs", "reward_model_name_or_path")
_JUDGED = ("desirable_weight", "undesirable_weight")


def fill(draft: Draft) -> None:
    """Every key that has a counterpart."""
    _refuse(draft)
    draft.move("model_name_or_path", "model.name_or_path")
    draft.move("model_revision", "model.revision", {"main": None})
    draft.move("tokenizer_name_or_path", "model.tokenizer")
    shared.bits(draft)
    if not draft.has("quantization.double_quant") and draft.got("quantization.bits") == 4:
        draft.default("quantization.double_quant", False)
    shared.precision(draft, "torch_dtype", "dtype", "bnb_4bit_compute_dtype")
    adapter(draft)
    _data(draft)
    _loss(draft)
    lengths(draft)
    trainer(draft, learning_rate=2e-5)
    shared.packed(draft)
    draft.move("eval_on_start", "eval.at_start")


def adapter(draft: Draft) -> None:
    """PEFT's LoRA with the defaults of TRL's command line."""
    for key, default in (("r", 16), ("alpha", 32), ("dropout", 0.05)):
        ours = f"method.{'rank' if key == 'r' else key}"
        if not draft.move(f"lora_{key}", ours):
            draft.default(ours, default)
    if not draft.move("lora_target_modules", "method.target_modules", _targets):
        targets_of_peft(draft, "lora_target_modules")
    draft.move("lora_modules_to_save", "method.modules_to_save")
    draft.move("use_rslora", "method.use_rslora")
    draft.move("use_dora", "method.use_dora")


def targets_of_peft(draft: Draft, key: str) -> None:
    """What PEFT adapts where the key is not there."""
    draft.default("method.target_modules", ["q_proj", "v_proj"], "PEFT's default for Llamas")
    draft.remark(
        f"no {key}: PEFT then adapts q_proj and v_proj of most families; all-linear learns more"
    )


def lengths(draft: Draft) -> None:
    """The longest row, and what happens to longer ones: TRL cuts them."""
    known = draft.move("max_length", "data.max_length") or draft.move(
        "max_seq_length", "data.max_length"
    )
    if not known:
        draft.default("data.max_length", 1024)
    draft.default("data.overlong", "truncate_end", f"{draft.tool} cuts longer rows")
    draft.leave("truncation_mode", "not needed", "longer rows are cut at their end")
    draft.move("packing", "data.packing", {False: None})


def _refuse(draft: Draft) -> None:
    judged = "trains KTO, on answers judged good or bad"
    refuse_any(draft, _JUDGED, judged, SUPERVISED)
    preferred = "a setting of DPO, on preferred and rejected answers"
    refuse_any(draft, _PREFERRED, preferred, SUPERVISED)
    refuse_any(draft, _REWARDED, "a setting of training against rewards", SUPERVISED)
    peft = draft.peek("use_peft")
    named = any(key.startswith("lora_") for key in draft.names)
    if peft is None and not named:
        anchor = draft.peek("model_name_or_path")
        assert anchor is not None
        refuse(anchor, "without use_peft: trains every weight", WHOLE)
    if peft is not None and peft.value is not True:
        refuse(peft, "use_peft: false: trains every weight", WHOLE)


def _targets(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and value[0] in ("all-linear", "all"):
        return "all-linear"
    return value


def _data(draft: Draft) -> None:
    splits: list[tuple[Node, rows.Table]] = []
    for key in ("dataset_mixture.datasets", "datasets"):
        node = draft.take(key)
        items = node.value if node is not None and isinstance(node.value, list) else []
        splits += [(item, _source(item)) for item in items]
    _named(draft)
    splits += _mixer(draft)
    rows.evaluated_apart(draft, splits, "written as their data sets")
    text = draft.take("dataset_text_field")
    if text is not None and text.value not in ("text", "messages"):
        draft.remark(f"dataset_text_field: {text.value}: write columns: {{text: {text.value}}}")
    for key in ("dataset_mixture.test_split_size", "test_split_size"):
        if draft.has("data.eval"):
            draft.leave(key, "not needed", "a test split is held out already")
        else:
            draft.move(key, "data.val_size")
    draft.leave("dataset_mixture.seed", "not in qtune", "train.seed is the seed of the split too")
    draft.move("streaming", "data.streaming", {False: None})
    shared.chat_template(draft, "chat_template")
    shared.chat_template(draft, "chat_template_path")


def _source(item: Node) -> rows.Table:
    told = item.plain()
    table = {"path": told.get("id") or told.get("path") or told.get("name")}
    if (config := told.get("config")) not in (None, "default"):
        table["config"] = config
    return {**table, "split": told.get("split")}


def _named(draft: Draft) -> None:
    """dataset_name with its splits."""
    node = draft.take("dataset_name")
    if node is None:
        return
    config = draft.part("dataset_config") or draft.part("dataset_config_name")
    learnt = draft.part("dataset_train_split", "train")
    table = {"path": node.value, "config": config}
    train = {**table, "split": None if learnt == "train" else learnt}
    rows.put_sources(draft, "data.train", [(node, train)], "written dataset_name")
    strategy = draft.peek("eval_strategy")
    if "dataset_test_split" in draft or (strategy and strategy.value not in ("no", False)):
        held = {**table, "split": draft.part("dataset_test_split", "test")}
        rows.put_sources(draft, "data.eval", [(node, held)], "written dataset_name")


def _mixer(draft: Draft) -> list[tuple[Node, rows.Table]]:
    """dataset_mixer: {name: share} with dataset_splits, of older alignment handbooks."""
    names, splits = draft.take_below("dataset_mixer"), draft.part("dataset_splits", ["train"])
    found = []
    for name, node in names.items():
        if isinstance(node.value, float | int) and node.value != 1:
            draft.remark(f"dataset_mixer: only {node.value} of {name}: max_rows takes a part")
        found += [(node, {"path": name, "split": split}) for split in splits]
    return found


def _loss(draft: Draft) -> None:
    """Which tokens are learnt: all of a chat unless they say otherwise."""
    for key in ("assistant_only_loss", "completion_only_loss"):
        draft.move(key, "loss.train_on", {True: "assistant", False: "all"})
    if draft.has("loss.train_on"):
        return
    chats = draft.has("data.train") and draft.got("data.train")[0].get("format") in (None, "text")
    if chats:
        draft.default("loss.train_on", "all", "TRL learns the whole of a chat or text")
        draft.remark(
            "TRL learns chats whole, and of prompt + completion rows the completion only: "
            "for those, or to learn answers alone, write loss: {train_on: assistant}"
        )
