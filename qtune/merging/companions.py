"""The small files beside the weights: config, tokenizer, generation settings."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from qtune.durable import write_json

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
BASE_FILES = ("generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")


def write(target: Path, *, config: dict[str, Any], base: Path, tokenizer: Path) -> None:
    """Write config.json and copy the rest unchanged; a file that the base lacks is not made up."""
    write_json(target / "config.json", config)
    _copy(base, target, BASE_FILES)
    _copy(tokenizer, target, TOKENIZER_FILES)


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)  # follows the links of a hub cache
            elif path.name == "chat_templates":
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
