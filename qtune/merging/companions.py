"""The small files beside the weights: config, tokenizer, generation settings."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from qtune.artefacts import read_object
from qtune.durable import write_json, write_text

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
BASE_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
_ENDS = "eos_token_id"


class Chat(NamedTuple):
    """The chat template a model was trained on, where it is not its tokenizer's own, and the ids
    that end an answer in it."""

    template: str
    ends: tuple[int, ...]


def write(
    target: Path, *, config: dict[str, Any], base: Path, tokenizer: Path, chat: Chat | None = None
) -> None:
    """Write config.json and copy the rest unchanged; a file that the base lacks is not made up."""
    write_json(target / "config.json", config)
    _copy(base, target, BASE_FILES)
    _copy(tokenizer, target, TOKENIZER_FILES)
    if chat is not None:
        _teach(target, config, chat)


def _teach(target: Path, config: dict[str, Any], chat: Chat) -> None:
    """The template that was trained on instead of the base's, and its ends to stop at."""
    for path in target.glob("chat_template*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_text(target / "chat_template.jinja", chat.template)
    settings = target / "tokenizer_config.json"
    if settings.is_file():
        own = read_object(settings)
        write_json(settings, {key: own[key] for key in own if key != "chat_template"})
    path = target / "generation_config.json"
    names = (_ENDS, "bos_token_id", "pad_token_id")
    found = read_object(path) if path.is_file() else {n: config[n] for n in names if n in config}
    before = found.get(_ENDS)
    known = before if isinstance(before, list) else [] if before is None else [before]
    write_json(path, {**found, _ENDS: [*known, *(end for end in chat.ends if end not in known)]})


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)  # follows the links of a hub cache
            elif path.name == "chat_templates":
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
