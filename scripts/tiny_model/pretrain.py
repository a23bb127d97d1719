"""Pretrain the tiny Llama from scratch on the made-up text."""

import math
import time
from collections.abc import Iterator

import torch
from pretraining_text import documents
from tiny_tokenizer import CONTEXT
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROW_TOKENS = 256
ROWS = 16
MATRIX_RATE = 0.02  # for Muon, which trains the matrices inside the layers
VECTOR_RATE = 3e-3  # for AdamW, which trains the embedding and the norms
WARMUP_STEPS = 50


def make_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """Make an untrained model; all sizes are multiples of 64, so whole NF4 blocks fit."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Iterator[Tensor]:
    """Yield batches of rows cut from one long stream of documents."""
    stream: list[int] = []
    size = ROWS * ROW_TOKENS
    for document in documents(seed):
        if isinstance(document, str):
            stream += [*tokenizer(document)["input_ids"], tokenizer.eos_token_id]
        else:
            stream += tokenizer.apply_chat_template(document, return_dict=False)
        if len(stream) >= size:
            yield torch.tensor(stream[:size]).view(ROWS, ROW_TOKENS)
            stream = stream[size:]


def rate_factor(step: int, steps: int) -> float:
    """Rise during warm-up, stay, and fall to nothing over the second half."""
    return min(1.0, (step + 1) / WARMUP_STEPS, 2 * (1 - step / steps))


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Train matrices inside the layers by Muon, which needs far fewer tokens, the rest by AdamW."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05),
        torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    seed: int,
    dtype: torch.dtype,
) -> float:
    """Train the model in place and return the mean loss of the last hundred steps."""
    torch.set_num_threads(2)
    optimizers = make_optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps))
        for optimizer in optimizers
    ]
    start, losses = time.monotonic(), []
    model.train()
    for step, rows in zip(range(steps), batches(tokenizer, seed=seed), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        model.zero_grad()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss is {losses[-1]} at step {step}")
        if step % 100 == 99:
            seconds = time.monotonic() - start
            mean = sum(losses[-100:]) / 100
            print(f"step {step + 1:5d}  loss {mean:.4f}  {seconds:5.0f} s", flush=True)
    return sum(losses[-100:]) / len(losses[-100:])
