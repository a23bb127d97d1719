"""Command lines of artidoro/qlora's qlora.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.refusing import WHOLE, refuse

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft

NAME = "qlora.py"
# --dataset -> (hub id, format)
_DATA = {
    "alpaca": ("tatsu-lab/alpaca", "alpaca"),
    "alpaca-clean": ("yahma/alpaca-cleaned", "alpaca"),
    "chip2": ("laion/OIG", "auto"),
    "self-instruct": ("yizhongw/self_instruct", "self-instruct"),
    "hh-rlhf": ("Anthropic/hh-rlhf", "text"),
    "longform": ("akoksal/LongForm", "auto"),
    "oasst1": ("timdettmers/openassistant-guanaco", "text"),
}
_FORMATS = {"alpaca": "alpaca", "alpaca-clean": "alpaca", "self-instruct": "self-instruct"}
_MEASURES = ("do_mmlu_eval", "mmlu_dataset", "mmlu_split", "mmlu_source_max_len")
_WRITES = ("predict_with_generate", "do_predict", "do_sample", "top_p", "temperature")


def fill(draft: Draft) -> None:
    """Every flag that has a counterpart, and the script's own defaults."""
    _refuse(draft)
    if not draft.move("model_name_or_path", "model.name_or_path"):
        draft.default("model.name_or_path", "EleutherAI/pythia-12b")
    _bits(draft)
    _adapter(draft)
    _data(draft)
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
    shared.batch(draft, *keys, defaults=(1, 16))
    _optimizer(draft)
    shared.length(draft, epochs=3.0)
    if not draft.has("train.max_steps") and "num_train_epochs" not in draft.names:
        draft.drop("train.num_train_epochs")
        draft.default("train.max_steps", 10_000)
    draft.move("seed", "train.seed")
    draft.move("output_dir", "train.output_dir")
    if not draft.move("group_by_length", "train.group_by_length"):
        draft.default("train.group_by_length", True)
    shared.saving(draft)
    draft.default("checkpoint.steps", 250)
    shared.evaluating(draft, ("evaluation_strategy", "eval_strategy"))
    for key in (*_MEASURES, *_WRITES, "max_new_tokens", "max_eval_samples", "do_eval"):
        draft.leave(key, "not needed", "qtune eval measures a run when it is done")


def _refuse(draft: Draft) -> None:
    whole = draft.peek("full_finetune")
    if whole is not None and whole.value is True:
        refuse(whole, "--full_finetune: trains every weight", WHOLE)
    train = draft.peek("do_train")
    if train is not None and train.value is False:
        refuse(train, "--do_train False: only measures", "qtune eval measures a run or a model")


def _bits(draft: Draft) -> None:
    draft.move("bits", "quantization.bits", {32: 16})
    draft.default("quantization.bits", 4)
    draft.move("quant_type", "quantization.quant_type")
    draft.move("double_quant", "quantization.double_quant")
    draft.move("double_quantization", "quantization.double_quant")
    had = "bf16" in draft or "fp16" in draft
    shared.precision(draft)
    if not had:
        draft.default("quantization.compute_dtype", "float32", "neither --bf16 nor --fp16")


def _adapter(draft: Draft) -> None:
    for theirs, ours, default in (
        ("r", "rank", 64),
        ("alpha", "alpha", 16),
        ("dropout",) * 2 + (0.0,),
    ):
        if not draft.move(f"lora_{theirs}", f"method.{ours}"):
            draft.default(f"method.{ours}", default)
    draft.leave("lora_modules", "not needed", "qlora.py adapts every linear layer")
    draft.default("method.target_modules", "all-linear", "qlora.py adapts every linear layer")


def _data(draft: Draft) -> None:
    node = draft.take("dataset")
    name = "alpaca" if node is None else str(node.value)
    path, shape = _DATA.get(name, (name, "auto"))
    told = draft.take("dataset_format")
    if told is not None:
        shape = _FORMATS.get(str(told.value), shape)
    if name == "chip2" or name == "longform":
        draft.remark(f"--dataset {name}: see that the columns and the prompt are right")
    anchor = node or draft.root
    table: rows.Table = {"path": path, "format": shape}
    table["max_rows"] = draft.part("max_train_samples")
    rows.put_sources(draft, "data.train", [(anchor, table)], "written --dataset")
    measured = draft.value("do_eval") or draft.part("evaluation_strategy", "no") != "no"
    if name == "oasst1":
        held = {"path": path, "format": shape, "split": "test"}
        rows.put_sources(draft, "data.eval", [(anchor, held)], "its split test")
        draft.leave("eval_dataset_size", "not needed", "the data set has a split test")
    elif measured:
        if not draft.move("eval_dataset_size", "data.val_size"):
            draft.default("data.val_size", 1024)
    else:
        draft.leave("eval_dataset_size", "not needed", "nothing is evaluated without --do_eval")
    if shape == "text":  # the script knows no prompt in texts: all of them is the target
        draft.default("loss.train_on", "all", "texts are learnt whole")
        draft.leave("train_on_source", "not needed", "a text has no prompt")
    elif not draft.move("train_on_source", "loss.train_on", {True: "all", False: "assistant"}):
        draft.default("loss.train_on", "assistant")
    if shape == "alpaca":
        draft.default("model.chat_template", "alpaca", "the prompt that qlora.py writes")
    _length(draft, whole=shape == "text")


def _length(draft: Draft, *, whole: bool) -> None:
    """Source and target have limits of their own there; here a row has one."""
    source, target = draft.take("source_max_len"), draft.take("target_max_len")
    parts = [1024 if source is None else source.value, 256 if target is None else target.value]
    if all(type(part) is int for part in parts):
        size = parts[1] if whole else parts[0] + parts[1]  # type: ignore[operator]
        said = "target_max_len" if whole else "source_max_len + target_max_len"
        draft.put("data.max_length", source or target or draft.root, size, said)
    draft.default("data.overlong", "truncate_end", "qlora.py cuts longer rows")


def _optimizer(draft: Draft) -> None:
    if draft.value("adam8bit"):
        draft.default("optim.name", "adamw_8bit", "written adam8bit")
    shared.optimizer(draft, "optim", default="paged_adamw_32bit")
    schedule = draft.peek("lr_scheduler_type")
    shared.schedule(draft, "lr_scheduler_type", default="constant")
    if (
        schedule is not None
        and schedule.value != "constant"
        and not draft.has("optim.warmup_ratio")
    ):
        draft.drop("optim.warmup_steps")
        draft.default("optim.warmup_ratio", 0.03)
    if "max_grad_norm" not in draft:
        draft.default("optim.max_grad_norm", 0.3)
    shared.rates(draft, learning_rate=2e-4)
