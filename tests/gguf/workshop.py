"""Tiny models of the families that GGUF is written of, and tokenizers with merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 352,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "llama tied, wide heads": lambda: LlamaConfig(
        **{**SIZES, "tie_word_embeddings": True, "head_dim": 32}
    ),
    "llama 3.1": lambda: LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE),
    "llama with biases, linear": lambda: LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, rope_parameters=LINEAR
    ),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3 yarn": lambda: Qwen3Config(**SIZES, head_dim=16, rope_parameters=YARN),
    "llama yarn": lambda: LlamaConfig(**SIZES, rope_parameters=YARN),
}
TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "12 red birds and 345 blue fish, isn't it? It's what they're saying.",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 23))",
    "345 345 345 345 345 12 12 12 12",
] * 4


def model_of(config: Any, seed: int = 0) -> Any:
    """A random model with biases and norms that are not their trivial values."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def byte_level(
    pattern: str | None = None, *, size: int = 340, **settings: Any
) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a few dozen merges; `pattern` cuts instead of GPT-2's own."""
    tokenizer = Tokenizer(models.BPE(**settings))
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        own = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), own])
    tokenizer.pre_tokenizer = own
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _fast(tokenizer)


def sentence_piece() -> PreTrainedTokenizerFast:
    """A BPE of SentencePiece as transformers converts one: each split of a piece is a merge."""
    start = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=80, show_progress=False)
    start.train_from_iterator(
        ["".join("\u2581" + word for word in text.split()) for text in TEXTS], trainer
    )
    pieces = sorted(start.get_vocab(), key=start.get_vocab().__getitem__)
    names = ["<s>", "</s>", "<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {name: number for number, name in enumerate([*names, *pieces])}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    fast = _fast(tokenizer)
    fast.add_special_tokens({"unk_token": "<unk>"})
    return fast


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def saved(folder: Path, model: Any, tokenizer: Any = None) -> Path:
    """A whole model folder."""
    model.save_pretrained(folder)
    (tokenizer or byte_level()).save_pretrained(folder)
    return folder
