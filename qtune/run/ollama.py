"""The Modelfile beside a GGUF: the model's own chat template in Ollama's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.artefacts import read_object
from qtune.durable import write_text
from qtune.gguf import modelfile

if TYPE_CHECKING:
    from pathlib import Path


def write(
    path: Path,
    *,
    base: str,
    adapter: str | None,
    tokenizer: Any,
    ends: list[int],
    note: str = "",
) -> modelfile.Template:
    """Write a Modelfile for files beside it; returns the chat template that it took."""

    def render(text: str, turns: list[dict[str, str]]) -> str:
        written = tokenizer.apply_chat_template(
            turns, chat_template=text, tokenize=False, add_generation_prompt=True
        )
        return str(written).removeprefix(tokenizer.bos_token or "")

    found = tokenizer.chat_template
    template = modelfile.recognised(found if isinstance(found, str) else None, render)
    own = tokenizer.eos_token_id
    stops = dict.fromkeys([*([] if own is None else [own]), *ends])
    text = modelfile.modelfile(
        base=base,
        adapter=adapter,
        template=template,
        eos=tokenizer.eos_token or "",
        stops=[str(tokenizer.convert_ids_to_tokens(stop)) for stop in stops],
        note=note,
    )
    write_text(path, text)
    return template


def ends_of(folder: Path) -> list[int]:
    """The ids that end an answer by a model's generation_config.json."""
    path = folder / "generation_config.json"
    found = read_object(path).get("eos_token_id") if path.is_file() else None
    return [int(end) for end in (found if isinstance(found, list) else [found]) if end is not None]
