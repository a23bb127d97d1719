"""Load the tokenizer of a base model; every usual fault gets a line of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import hub
from qtune.artefacts import read_object
from qtune.errors import ModelError
from qtune.models.chat_template import set_chat_template
from qtune.models.files import SMALL, locate
from qtune.plan import read_config

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.inputs import ModelSection

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
SENTENCEPIECE = ("tokenizer.model", "spiece.model")
OTHER = ("vocab.json", "vocab.txt", "tekken.json")


def load_tokenizer(section: ModelSection) -> Any:
    """The tokenizer of `model.tokenizer`, or of the model itself, with the recipe's chat template;
    never wider than the model."""
    from transformers import AutoTokenizer

    if section.offline:
        hub.go_offline()
    model = locate(section.name_or_path, revision=section.revision, patterns=SMALL)
    folder = model if section.tokenizer is None else locate(section.tokenizer, patterns=SMALL)
    _check_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"no usable tokenizer: {reason}", place=str(folder)) from error
    _check_width(tokenizer, model, folder)
    set_chat_template(tokenizer, section)
    return tokenizer


def _check_files(folder: Path) -> None:
    for name in FILES:
        if (folder / name).is_file():
            read_object(folder / name)
    if (folder / "tokenizer.json").is_file():
        return
    hint = "set model.tokenizer to a folder or hub id that holds tokenizer.json"
    for name in SENTENCEPIECE:
        if (folder / name).is_file():
            raise ModelError(
                f"only {name}, which transformers may read into wrong ids",
                place=str(folder),
                hint=hint,
            )
    if not any((folder / name).is_file() for name in OTHER):
        raise ModelError("no tokenizer in this folder", place=str(folder), hint=hint)


def _check_width(tokenizer: Any, model: Path, folder: Path) -> None:
    """Every id of the tokenizer must have a row in the model's embedding."""
    config = read_config(model)
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and highest >= rows:
        raise ModelError(
            f"the tokenizer has ids up to {highest}, the model's embedding {rows} rows",
            place=str(folder),
            hint="this tokenizer belongs to another model",
        )
