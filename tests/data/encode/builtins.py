"""Tokenizers for the built-in templates: bytes, and the special tokens that real ones have."""

from __future__ import annotations

from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from qtune.templates import text_of
from tests.tiny import tiny_tokenizer

SPECIALS = {
    "alpaca": [],
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "gemma": ["<start_of_turn>", "<end_of_turn>"],
    "llama-3": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "mistral": ["[INST]", "[/INST]"],
    "phi": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "qwen": ["<|im_start|>", "<|im_end|>"],
    "vicuna": [],
    "zephyr": [],
}
# Those whose models come with a tokenizer that puts <s> in front by itself.
BEGINNING = {"gemma", "llama-3", "mistral", "vicuna", "zephyr"}


def built_in(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes for one built-in template."""
    made = tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": SPECIALS[name]})
    if name in BEGINNING:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    made.chat_template = text_of(name)
    return made
