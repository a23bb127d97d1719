"""Scripts and notebooks of Unsloth, or of TRL with PEFT: the keyword arguments of their calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.recipe import foreign
from qtune.recipe.importing import rows, shared, trl, unsloth
from qtune.recipe.importing.facts import COMMON
from qtune.recipe.importing.refusing import WHOLE, refuse, refuse_objective
from qtune.recipe.importing.trainer import trainer

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft
    from qtune.recipe.importing.facts import Reason

_BITS = ("load_in_4bit", "load_in_8bit", "load_in_16bit")
_ONLY_RUNNING: Reason = ("not in qtune", "only running the script would tell")
_ROWS = foreign.MICRO | foreign.ACCUMULATION
_OURS = {
    **foreign.FLAT,
    **dict.fromkeys(foreign.BITS, "quantization.bits"),
    **dict.fromkeys(_ROWS, "train.batch_size"),
    **{key: f"method.{key}" for key in ("target_modules", "modules_to_save")},
    **{"r": "method.rank", "random_state": "train.seed", "model_name": "model.name_or_path"},
}
# What another key of theirs sets by default: it says nothing where that key is computed.
_BESIDE = {
    "optim.warmup_ratio": "optim.warmup_steps",
    "train.max_steps": "train.num_train_epochs",
}


def fill(draft: Draft) -> None:
    """Every keyword argument that has a counterpart, with the defaults of the calls seen."""
    refuse_objective(draft, "objective")
    calls = draft.part("calls", [])
    if not calls:
        hint = "it reads the keyword arguments of from_pretrained, get_peft_model, SFTConfig ..."
        raise UsageError("no training in this script", place=draft.root.source.name, hint=hint)
    whole = draft.peek("full_finetuning")
    if whole is not None and whole.value is True:
        refuse(whole, "full_finetuning=True: trains every weight", WHOLE)
    draft.move("model_name", "model.name_or_path")
    draft.move("pretrained_model_name_or_path", "model.name_or_path")
    of_unsloth = any(each.startswith("Fast") for each in calls)
    if of_unsloth and not {*_BITS} & {*draft.names}:
        draft.default("quantization.bits", 4, "Unsloth's default")
    shared.bits(draft)
    shared.precision(draft, "dtype", "torch_dtype", "bnb_4bit_compute_dtype")
    _adapter(draft, calls)
    _data(draft)
    trl.lengths(draft)
    trainer(draft, learning_rate=_rate(calls, of_unsloth=of_unsloth))
    draft.move("random_state", "train.seed")
    _computed(draft)
    shared.packed(draft)


def _adapter(draft: Draft, calls: list[str]) -> None:
    """PEFT's own names of the adapter's keys; its defaults, or those of Unsloth's call."""
    draft.move("r", "method.rank")
    of_peft = "LoraConfig" in calls
    unsloth.adapter(draft, "", (8, 8, 0.0) if of_peft else (16, 16, 0.0))
    given = draft.has("method.target_modules") or "computed.target_modules" in draft
    if of_peft and not given:
        trl.targets_of_peft(draft, "target_modules")
    draft.move("modules_to_save", "method.modules_to_save")
    if not {"LoraConfig", "get_peft_model"} & {*calls}:
        draft.remark("no LoraConfig in this script: see that it trains LoRA, and with which rank")


def _rate(calls: list[str], *, of_unsloth: bool) -> float:
    """The default peak rate: SFTConfig's own, or the Trainer's, which Unsloth keeps too."""
    of_trainer = {"TrainingArguments", "UnslothTrainingArguments"} & {*calls}
    return 5e-5 if of_unsloth or of_trainer else 2e-5


def _data(draft: Draft) -> None:
    for theirs, ours in (("load_dataset", "data.train"), ("eval_dataset", "data.eval")):
        if (node := draft.take(theirs)) is not None:
            found = [(node, table) for table in node.plain()]
            rows.put_sources(draft, ours, found, f"written {theirs}")
    for remark in draft.part("remarks", []):
        draft.remark(remark)
    if draft.has("data.train"):
        draft.remark("a script may rename or rewrite columns: see qtune data preview")
    shared.chat_template(draft, "chat_template")
    answers = draft.take("train_on_responses_only") is not None
    why = "train_on_responses_only" if answers else "no train_on_responses_only: all is learnt"
    for key in ("assistant_only_loss", "completion_only_loss"):
        draft.move(key, "loss.train_on", {True: "assistant", False: "all"})
    draft.default("loss.train_on", "assistant" if answers else "all", why)


def _computed(draft: Draft) -> None:
    """Arguments that only running the script would tell: qtune's default stands, and is told."""
    for key, node in draft.take_below("computed").items():
        ours = _OURS.get(key)
        draft.leave(f"computed.{key}", *COMMON.get(key, _ONLY_RUNNING))
        if ours is None or key in COMMON or key in draft:
            continue
        if key in _ROWS:
            draft.left = [one for one in draft.left if one.key not in _ROWS]
            for factor in _ROWS:
                draft.leave(factor, "not in qtune", f"of no use without {key}")
        beside = draft.settings.get(ours.partition(".")[0], {}).get(
            _BESIDE.get(ours, ours).partition(".")[2]
        )
        if beside is not None and not beside.note.startswith("written "):
            draft.drop(_BESIDE.get(ours, ours))
        draft.drop(ours)
        draft.remark(
            f"{key} is computed (`{node.plain()}`, line {node.line}): write {ours}, "
            "which is qtune's default now"
        )
