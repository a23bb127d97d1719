"""The settings of a first recipe, each with its reason, and their text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import hub, templates
from qtune.recipe.writing import flow

if TYPE_CHECKING:
    from qtune.plan import ModelShape
    from qtune.run.starting.looking import Look

_COLUMN = 36
_LARGE = 30 * 10**9
_FEW = 2_000
"""Rows of which more than one pass is learnt."""
_LENGTHS = (256, 512, 1024, 2048, 4096)
_ROOM = 1.25
"""Over the longest estimate, as letters a token differ."""
_UNKNOWN = 1600
"""Tokens of the longest row, where nothing tells."""
_HELD_OUT = 200


@dataclass
class Setting:
    """One key with its value and why it has it."""

    value: Any
    why: str = ""


Settings = dict[str, dict[str, Setting]]


def first_settings(model: str, shape: ModelShape, seen: Look) -> Settings:
    """QLoRA as published, sized for the rows."""
    settings: Settings = {
        "model": {"name_or_path": Setting(_input(model, folder=hub.local_folder(model)))},
        "data": _data(shape, seen),
        "method": {
            "rank": Setting(64, "of every linear layer; less is smaller and often as good"),
            "alpha": Setting(16),
            "dropout": Setting(0.05),
        },
        "optim": _rates(shape),
        "train": {
            "batch_size": Setting(16, "rows of a step, however they are split"),
            "num_train_epochs": Setting(*_epochs(seen)),
        },
    }
    if shape.encoder:
        settings["model"]["task"] = Setting("classification", "an encoder: it learns labels")
        settings["checkpoint"] = {"metric": Setting("accuracy", "names the best weights")}
    elif seen.chats and _has_no_template(model):
        why = "the tokenizer has none, and chats need one"
        settings["model"]["chat_template"] = Setting(_fitting_template(model), why)
    return settings


def _rates(shape: ModelShape) -> dict[str, Setting]:
    large = shape.total_parameters >= _LARGE
    why = "the paper's, from 33B on" if large else "the paper's, up to 13B"
    return {
        "learning_rate": Setting(1e-4 if large else 2e-4, why),
        "lr_scheduler_type": Setting("constant", "after the warm-up; or linear, cosine"),
    }


def _data(shape: ModelShape, seen: Look) -> dict[str, Setting]:
    source: dict[str, Any] = {"path": _input(seen.path, folder=_local(seen))}
    if seen.format != "auto" and not shape.encoder:
        source["format"] = seen.format
    if seen.columns:
        source["columns"] = seen.columns
    found: dict[str, Setting] = {"train": Setting([source], seen.told())}
    if seen.rows is None or seen.rows >= 2 * _HELD_OUT:
        found["val_size"] = Setting(_HELD_OUT, "rows held out to measure on")
    elif seen.rows >= 20:
        found["val_size"] = Setting(0.1, "share of the rows, held out to measure on")
    most = shape.max_positions or _LENGTHS[-1]
    wanted = (seen.tokens or _UNKNOWN) * _ROOM
    length = next((each for each in _LENGTHS if each >= wanted), _LENGTHS[-1])
    why = "in tokens; longer rows are left out and counted"
    if wanted > min(length, most) * _ROOM:
        why = "the most here; many rows may be longer, see data.overlong"
    if seen.format == "text":
        length, why = 1024, "in tokens; longer texts are split"
    if shape.encoder:
        found["overlong"] = Setting("truncate_end", "a label needs no whole text")
        why = "in tokens; longer texts are cut"
    found["max_length"] = Setting(min(length, most), why)
    return found


def _epochs(seen: Look) -> tuple[int, str]:
    if seen.rows is not None and seen.rows < _FEW:
        return 3, "few rows are seen more than once; the best weights are kept"
    return 1, "one pass; more can forget what the base knows"


def _local(seen: Look) -> Path | None:
    return None if seen.hub else Path(seen.path)


def _input(text: str, *, folder: Path | None) -> str:
    """A local input as an absolute path; a hub id as it stands."""
    return text if folder is None else os.path.abspath(Path(text).expanduser())  # noqa: PTH100


def _has_no_template(model: str) -> bool:
    """Whether a local model's files hold no chat template; of a hub id nothing is known."""
    folder = hub.local_folder(model)
    if folder is None or (folder / "chat_template.jinja").is_file():
        return False
    try:
        return "chat_template" not in (folder / "tokenizer_config.json").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return True


def _fitting_template(model: str) -> str:
    """A built-in whose end of an answer the tokenizer has a token for; vicuna needs none."""
    folder = hub.local_folder(model)
    try:
        known = (folder / "tokenizer.json").read_text("utf-8") if folder else ""
    except (OSError, UnicodeDecodeError):
        known = ""
    preferred = ("chatml", "llama-3", "gemma", "phi")
    return next((name for name in preferred if f'"{templates.ENDS[name]}"' in known), "vicuna")


def apply(settings: Settings, changes: tuple[str, ...], why: str) -> None:
    """Set what a suggestion says, `section.key=value`, over the settings."""
    from qtune.recipe.scalars import scalar

    for change in changes:
        path, _, value = change.partition("=")
        section, _, key = path.partition(".")
        settings.setdefault(section, {})[key] = Setting([] if value == "[]" else scalar(value), why)


def text_of(settings: Settings, head: list[str], *, folder: Path | None = None) -> str:
    """The recipe; local paths relative to `folder`, or absolute without one."""
    lines = [f"# {line}".rstrip() for line in head]
    for section, keys in settings.items():
        lines += ["", f"{section}:"]
        for key, setting in keys.items():
            lines += _lines(key, setting, folder)
    return "\n".join(lines) + "\n"


def _lines(key: str, setting: Setting, folder: Path | None) -> list[str]:
    if isinstance(setting.value, list) and setting.value and isinstance(setting.value[0], dict):
        lines = [*(f"  # {part}" for part in setting.why.split("; ") if part), f"  {key}:"]
        for item in setting.value:
            mark = "-"
            for name, value in item.items():
                shown = _relative(value, folder) if name == "path" else value
                lines.append(f"    {mark} {name}: {flow(shown)}")
                mark = " "
        return lines
    text = f"  {key}: {flow(_relative(setting.value, folder))}"
    return [f"{text.ljust(_COLUMN)}# {setting.why}" if setting.why else text]


def _relative(value: Any, folder: Path | None) -> Any:
    if folder is None or not isinstance(value, str) or not Path(value).is_absolute():
        return value
    relative = os.path.relpath(value, folder.resolve())
    return relative if relative.startswith("..") else f"./{relative}"
