"""What one run, or a bare base, costs when it is used: its own process, so that memory is honest.

Latency is that of greedy decoding, one prompt at a time: with the adapter, without it in turns
with that, and merged where the method merges.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from qtune import evaluation, losses, models, recipe
from qtune.methods.base import CannotMerge
from qtune.models.dense import dense_bytes, make_dense
from qtune.plan import Machine, human, loss_chunk_size
from qtune.run.comparison.flops import flops_per_token
from qtune.run.eval import held_out
from qtune.run.memory import forget_peak, peak_bytes
from qtune.run.subject import Subject, load, resolve, working_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from qtune.data import Rows
    from qtune.methods import AdapterFile
    from qtune.methods.base import Method
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display

PROMPTS, NEW_TOKENS, ROUNDS = 3, 32, 3
BATCH_SIZE = 8


@dataclass
class Bench:
    """A loaded model, its adapter and the rows that it is tried on."""

    asked: Recipe
    model: nn.Module
    rows: Rows
    prompts: list[list[int]]
    fingerprint: str


def measure_cost(path: Path, run: Path | None, *, display: Display) -> dict[str, Any]:
    """Memory, FLOPs and latency of a run on its recipe's held-out rows; without a run those of the
    base alone, and how good it is."""
    asked = recipe.load(path).recipe
    subject = _subject(asked, run)
    tokenizer = models.load_tokenizer(asked.model)
    rows = held_out(subject, asked, None, tokenizer, display)
    loaded = load(
        subject, device=working_device(), on_progress=partial(display.progress, "loading")
    )
    model = loaded.base.model
    bench = Bench(asked, model, rows, prompts_of(rows, model), loaded.base.fingerprint)
    forget_peak()
    bench_seconds(bench)
    found: dict[str, Any] = {"inference_peak_bytes": peak_bytes()}
    found |= flops_per_token(model, loaded.method, rows, chunk_size=loss_chunk_size(asked))
    if loaded.method is None:
        found["evaluation"] = _evaluate(bench, tokenizer, display)
        seconds = {"base": median(bench_seconds(bench) for _ in range(ROUNDS))}
        return found | {"seconds_per_token": seconds}
    adapter = subject.read_adapter()
    seconds = alternate(bench, loaded.method, adapter)
    merged, reason = merged_seconds(bench, adapter)
    found["seconds_per_token"] = seconds | {"merged": merged}
    return found | {"not_merged": reason}


def alternate(bench: Bench, method: Method, adapter: AdapterFile) -> dict[str, float]:
    """Median seconds a token with the adapter and without it, taken in turns; it ends detached."""
    attached, base = [], []
    for last in (*[False] * (ROUNDS - 1), True):
        attached.append(bench_seconds(bench))
        method.detach()
        base.append(bench_seconds(bench))
        if not last:
            method = adapter.attach(bench.model, base_fingerprint=bench.fingerprint)
            bench.model.eval()
            bench_seconds(bench)
    return {"attached": median(attached), "base": median(base)}


def merged_seconds(bench: Bench, adapter: AdapterFile) -> tuple[float | None, str]:
    """Seconds a token of the base made dense with the adapter in it, or why there are none."""
    try:
        edits = adapter.merge_edits()
    except CannotMerge as refused:
        return None, refused.faults[0].message
    dtype = getattr(torch, bench.asked.quantization.compute_dtype)
    needed, there = dense_bytes(bench.model, dtype), Machine.probe().device_memory
    if needed > there:
        return None, f"its dense weights take {human(needed)}, and {human(there)} are free"
    turned = bool(adapter.raw.get("fan_in_fan_out"))
    make_dense(bench.model, edits, dtype=dtype, fan_in_fan_out=turned)
    bench_seconds(bench)
    return median(bench_seconds(bench) for _ in range(ROUNDS)), ""


def bench_seconds(bench: Bench) -> float:
    """Seconds a new token, over all prompts, each alone."""
    started, tokens = time.perf_counter(), 0
    with evaluation.evaluating(bench.model):
        for prompt in bench.prompts:
            stream = evaluation.token_stream(bench.model, [prompt])
            tokens += len(list(islice(stream, NEW_TOKENS)))
    return (time.perf_counter() - started) / tokens


def prompts_of(rows: Rows, model: nn.Module) -> list[list[int]]:
    """The first prompts, cut so that the answer fits; of plain text the first half of a row."""
    room = evaluation.context_length(model) // 2 - NEW_TOKENS
    chosen: Sequence[int] = range(min(PROMPTS, len(rows)))
    asked = [rows[number] for number in chosen]
    found = [row.prompt_ids or row.input_ids[: len(row.input_ids) // 2 + 1] for row in asked]
    return [list(prompt[-max(room, 1) :]) for prompt in found]


def _subject(asked: Recipe, run: Path | None) -> Subject:
    """The run with the recipe as it is given, or the recipe's base alone."""
    if run is not None:
        return replace(resolve(str(run)), recipe=asked)
    name = Path(asked.model.name_or_path).name
    return Subject("model", name, asked.model, asked.quantization, recipe=asked)


def _evaluate(bench: Bench, tokenizer: Any, display: Display) -> dict[str, float]:
    """The measures that training takes of its held-out rows."""
    micro = bench.asked.memory.micro_batch_size
    batch_size = bench.asked.eval.batch_size or (micro if micro != "auto" else BATCH_SIZE)
    return evaluation.evaluate(
        bench.model,
        tokenizer,
        bench.rows,
        bench.asked.eval,
        loss=losses.CausalLoss(chunk_size=loss_chunk_size(bench.asked)),
        batch_size=batch_size,
        on_progress=display.progress,
    )
