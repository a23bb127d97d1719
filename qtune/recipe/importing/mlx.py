"""mlx-lm's `mlx_lm.lora` YAML; its steps are micro-batches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtune.recipe.files import expand
from qtune.recipe.importing import rows, shared
from qtune.recipe.importing.refusing import WHOLE, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.recipe.importing.draft import Draft

NAME = "mlx-lm"
_FEW_BITS = re.compile(r"(\d)-?bit", re.IGNORECASE)


def fill(draft: Draft, layers_of: Callable[[str], int | None]) -> None:
    """Every key that has a counterpart; `layers_of` tells how many layers a model has."""
    _refuse(draft)
    _model(draft)
    _adapter(draft, layers_of)
    _data(draft)
    every = draft.number("grad_accumulation_steps", 1)
    shared.batch(draft, "batch_size", "grad_accumulation_steps", defaults=(4, 1))
    _steps(draft, max(1, int(every)))
    _optimizer(draft)
    draft.move("seed", "train.seed")
    draft.move("adapter_path", "train.output_dir")
    for key in ("val_batches", "test", "test_batches"):
        draft.leave(key, "not needed", "all held-out rows are measured; qtune eval measures others")


def _refuse(draft: Draft) -> None:
    train, kind = draft.peek("train"), draft.peek("fine_tune_type")
    if train is not None and train.value is False:
        refuse(train, "train: false: only measures", "qtune eval measures a run or a model")
    if kind is not None and kind.value == "full":
        refuse(kind, "fine_tune_type: full: trains every weight", WHOLE)
    if kind is not None and kind.value == "dora":
        draft.move("fine_tune_type", "method.use_dora", lambda _: True)
    draft.leave("fine_tune_type", "not needed", "method.name is lora without being told")


def _model(draft: Draft) -> None:
    name = str(draft.value("model", ""))
    node = draft.peek("model") or draft.root
    draft.put("model.name_or_path", node, name, "written model")
    few = _FEW_BITS.search(name)
    if few is None:
        draft.default("quantization.bits", 16, "the model is not quantised")
    else:
        draft.put("quantization.bits", node, 8 if few[1] == "8" else 4, f"the model's {few[0]}")
        draft.remark(
            f"{name} holds MLX's own {few[0]} weights, which only MLX reads: name the 16-bit model "
            "they were made from; qtune quantises it to NF4 as it loads"
        )
    if name.startswith("mlx-community/") and few is None:
        draft.remark(f"{name} is a conversion for MLX: if it does not load, name its original")


def _adapter(draft: Draft, layers_of: Callable[[str], int | None]) -> None:
    own = "lora_parameters."
    if not draft.move(f"{own}rank", "method.rank"):
        draft.default("method.rank", 8)
    rank, scale = draft.number(f"{own}rank", 8), draft.number(f"{own}scale", 20.0)
    node = draft.take(f"{own}scale") or draft.root
    draft.put("method.alpha", node, float(scale * rank), f"scale {scale} x rank {rank}")
    draft.leave(f"{own}alpha", "not needed", "mlx-lm reads the scale")
    if not draft.move(f"{own}dropout", "method.dropout"):
        draft.default("method.dropout", 0.0)
    draft.move(f"{own}keys", "method.target_modules")
    number = draft.peek("num_layers")
    last = 16 if number is None else number.value
    if type(last) is not int or last < 1:
        draft.value("num_layers")
        return
    whole = layers_of(str(draft.got("model.name_or_path")))
    if whole is None:
        why = (
            f"the last {last} layers: how many the model has is not known here; "
            "method.layers_to_transform lists their numbers"
        )
        draft.leave("num_layers", "not in qtune", why)
        draft.remark(f"num_layers {last}: every layer is adapted here, unless you list the last")
    elif whole <= last:
        draft.leave("num_layers", "not needed", f"the model has {whole} layers: all of them")
    else:
        layers = list(range(whole - last, whole))
        draft.put(
            "method.layers_to_transform",
            draft.take("num_layers") or draft.root,
            layers,
            f"the last {last} of {whole} layers",
        )


def _data(draft: Draft) -> None:
    node = draft.take("data") or draft.root
    name = str(node.value if isinstance(node.value, str) else "data")
    folder = expand(name)
    local = folder.is_dir() or name.startswith((".", "/", "~")) or "/" not in name.strip("/")
    if local:
        learnt: rows.Table = {"path": f"{name.rstrip('/')}/train.jsonl"}
        held: rows.Table | None = {"path": f"{name.rstrip('/')}/valid.jsonl"}
        if folder.is_dir() and not (folder / "valid.jsonl").is_file():
            held = None
    else:
        learnt, held = {"path": name}, {"path": name, "split": "valid"}
        draft.remark(f"mlx-lm measures on the split valid: see what {name} calls it")
    rows.put_sources(draft, "data.train", [(node, learnt)], "written data")
    if held is not None:
        rows.put_sources(draft, "data.eval", [(node, held)], "written data")
    if not draft.move("mask_prompt", "loss.train_on", {True: "last_assistant", False: "all"}):
        draft.default("loss.train_on", "all")
    if not draft.move("max_seq_length", "data.max_length"):
        draft.default("data.max_length", 2048)
    draft.default("data.overlong", "truncate_end", f"{NAME} cuts longer rows")


def _steps(draft: Draft, every: int) -> None:
    """Their iterations are passes; ours are updates."""

    def updates(value: Any) -> Any:
        return max(1, value // every) if type(value) is int and value > 0 else None

    if not draft.move("iters", "train.max_steps", updates):
        draft.default("train.max_steps", updates(1000))
    draft.move("save_every", "checkpoint.steps", updates)
    draft.move("steps_per_eval", "eval.steps", updates)
    draft.move("steps_per_report", "logging.steps", updates)


def _optimizer(draft: Draft) -> None:
    node = draft.peek("optimizer")
    name = "adam" if node is None else str(node.value).lower()
    shared.optimizer(draft, "optimizer", default="adamw")
    own = f"optimizer_config.{name}."
    if not draft.move(f"{own}weight_decay", "optim.weight_decay") and name == "adamw":
        draft.default("optim.weight_decay", 0.01, "MLX's default of AdamW")
    draft.move(f"{own}betas", "optim.betas")
    draft.default("optim.max_grad_norm", shared.ENDS_WHOLE, f"{NAME} does not clip")
    if not draft.move("learning_rate", "optim.learning_rate"):
        draft.default("optim.learning_rate", 1e-5)
    kind = draft.part("lr_schedule.name")
    warmup = draft.part("lr_schedule.warmup", 0)
    draft.default("optim.warmup_steps", warmup, "lr_schedule.warmup" if warmup else "no warm-up")
    if kind is None:
        draft.default("optim.lr_scheduler_type", "constant", "no lr_schedule")
        return
    ours = {"cosine_decay": "cosine", "linear_schedule": "linear"}.get(str(kind))
    if ours is None:
        draft.remark(f"lr_schedule: {kind} is not in qtune: cosine takes its place")
    draft.default("optim.lr_scheduler_type", ours or "cosine", f"lr_schedule: {kind}")
    _ends(draft)


def _ends(draft: Draft) -> None:
    """arguments: [start, steps, end] of a schedule."""
    told = draft.part("lr_schedule.arguments", [])
    draft.leave("lr_schedule.warmup_init", "not needed", "a warm-up begins at zero")
    if not isinstance(told, list) or not told or not isinstance(told[0], int | float):
        return
    draft.drop("optim.learning_rate")
    draft.default("optim.learning_rate", float(told[0]), "lr_schedule.arguments")
    if len(told) > 2 and isinstance(told[2], int | float) and told[0]:
        draft.default("optim.min_lr_ratio", told[2] / told[0], "lr_schedule.arguments")
