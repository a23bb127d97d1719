"""Decoding with a key-value cache, many prompts at a time, each as if it were alone.

B prompts, P longest prompt, V vocabulary.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from qtune.evaluation.caches import new_cache
from qtune.methods.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from qtune.recipe.results import CacheKind

    Choose = Callable[[Tensor], Tensor]
    Ended = Callable[[list[int]], bool]


@dataclass(frozen=True)
class Continuation:
    """The new tokens of one prompt, without the token that ended it."""

    ids: list[int]
    stopped: bool


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row [B, V] -> [B]."""
    return logits.argmax(dim=-1)


def sampler(*, temperature: float, seed: int) -> Choose:
    """Draws from softmax(logits / temperature); the same seed gives the same text on a machine."""
    assert temperature > 0
    random = torch.Generator().manual_seed(seed)

    def draw(logits: Tensor) -> Tensor:
        # On the CPU, so that the draw does not depend on the device's generator.
        shares = torch.softmax(logits.float().cpu() / temperature, dim=-1)
        return torch.multinomial(shares, 1, generator=random).squeeze(1).to(logits.device)

    return draw


def decode(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    choose: Choose = greedy,
    ended: Ended | None = None,
    cache: CacheKind = "dynamic",
) -> list[Continuation]:
    """Continue each prompt until a stop token, `max_new_tokens` or the end of the context; or
    until `ended` says of its new tokens that they are enough."""
    room = context_length(model)
    limits = [min(max_new_tokens, room - len(prompt)) for prompt in prompts]
    ids: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    longest = min(room, max(len(prompt) for prompt in prompts) + max_new_tokens)
    with evaluating(model):
        kept = new_cache(cache, model, length=longest)
        stream = token_stream(model, prompts, choose=choose, cache=kept)
        for tokens in islice(stream, max(0, *limits)):
            for row, token in enumerate(tokens):
                if stopped[row] or len(ids[row]) >= limits[row]:
                    continue
                if token in stop_ids:
                    stopped[row] = True
                else:
                    ids[row].append(token)
                    stopped[row] = ended is not None and ended(ids[row])
            over = (len(row) >= limit for row, limit in zip(ids, limits, strict=True))
            if all(end or full for end, full in zip(stopped, over, strict=True)):
                break
    return [Continuation(ids=row, stopped=end) for row, end in zip(ids, stopped, strict=True)]


def context_length(model: Any) -> int:
    """The most positions that the model knows, without those that virtual tokens take."""
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not known:
        return 2**31
    # a prefix takes the same positions in every layer
    taken = {type(each): each.positions for each in model.modules() if isinstance(each, Adapter)}
    return int(known) - sum(taken.values())


def token_stream(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    choose: Choose = greedy,
    cache: Any = None,
) -> Iterator[list[int]]:
    """Endlessly yield the next token of every prompt; the caller stops, and sets eval mode.

    `cache` is an empty one of transformers, the model's own without it.

    Prompts are padded on the left, masked there, and counted from their own first token. After a
    row's stop token the row only goes along: what it yields then means nothing.
    """
    assert prompts, "nothing to continue"
    assert all(prompts), "an empty prompt has no last position"
    device = next(model.parameters()).device
    # The filler stands on masked positions only, so any id does.
    ids, mask = _left_padded(prompts, filler=prompts[0][0], device=device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    last = context_length(model) - 1
    while True:
        # Not around the loop: a suspended generator would leave gradients off for its caller.
        with torch.no_grad():
            output = model(
                input_ids=ids,
                attention_mask=mask,
                # a row that is full goes along at the last position; nobody reads it
                position_ids=positions.clamp(max=last),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            tokens = choose(output.logits[:, -1])
        cache = output.past_key_values
        yield tokens.tolist()
        ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = positions[:, -1:] + 1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; the mode before comes back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: its tensors may be cached and trained on later
            yield
    finally:
        model.train(was_training)


def stop_ids(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the tokenizer's and those of the generation config."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return frozenset(token for token in [*several, tokenizer.eos_token_id] if token is not None)


def _left_padded(
    prompts: Sequence[Sequence[int]], *, filler: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [B, P]; each prompt ends at the last column."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), filler, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
