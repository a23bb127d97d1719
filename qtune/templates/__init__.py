"""Built-in chat templates: one .jinja file each, and the mark that ends an answer in it.

The files are written for the sandbox of transformers and hold no code of a model: each says how
turns are written down, so a base model can be taught a format that servers know.
"""

from __future__ import annotations

from pathlib import Path

# Built-in -> the special token behind an answer; "": the tokenizer's own end of sequence.
ENDS: dict[str, str] = {
    "alpaca": "",
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama-3": "<|eot_id|>",
    "mistral": "",
    "phi": "<|end|>",
    "qwen": "<|im_end|>",
    "vicuna": "",
    "zephyr": "",
}
SUFFIX = ".jinja"
LARGEST = 64 * 1024


def text_of(name: str) -> str:
    """The text of a built-in template."""
    return (Path(__file__).parent / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def is_text(value: str) -> bool:
    """Whether a value of model.chat_template is a template itself."""
    return "{{" in value or "{%" in value


def is_file(value: str) -> bool:
    """Whether a value of model.chat_template names a file."""
    return value.endswith(SUFFIX) and not is_text(value)


def named(value: str) -> str:
    """A value of model.chat_template for people: a template written out is not repeated."""
    if is_text(value):
        return "the recipe's chat template"
    return Path(value).name if is_file(value) else f"the built-in chat template {value}"
