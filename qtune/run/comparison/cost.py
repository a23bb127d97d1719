"""What one run, or a bare base, costs when it is used: its own process, so that memory is honest.

Latency is that of greedy decoding, one prompt at a time, or of a classifier's rows, one at a time:
with the adapter, without it in turns with that, and merged where the method merges.
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

from qtune import evaluation, losses, methods, recipe
from qtune.data.batch import collate, collate_classified
from qtune.methods.base import CannotMerge
from qtune.models.dense import dense_bytes, make_dense
from qtune.plan import Machine, human, loss_chunk_size
from qtune.recipe.inputs import LossSection
from qtune.run.comparison.flops import flops_per_token
from qtune.run.eval import held_out
from qtune.run.labels import with_labels
from qtune.run.memory import forget_peak, peak_bytes
from qtune.run.prepare import method_of
from qtune.run.reading import load_reader
from qtune.run.subject import Subject, load, resolve, working_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from qtune.data import Rows
    from qtune.data.batch import Batch
    from qtune.data.rows import EncodedRow
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
    fingerprint: str

    @property
    def classifies(self) -> bool:
        """Whether the model labels rows; else it writes answers."""
        return self.asked.model.task == "classification"

    def batch(self, number: int) -> Batch:
        """One row."""
        device = next(self.model.parameters()).device
        if self.classifies:
            return collate_classified(self.rows, [number], pad_id=0).to(device)
        return collate([self.rows[number]], pad_id=0).to(device)

    def once(self) -> int:
        """Answer the first prompts, or label the first rows; how many tokens it took."""
        first = range(min(PROMPTS, len(self.rows)))
        if self.classifies:
            batches = [self.batch(number) for number in first]
            for batch in batches:
                losses.scores(self.model, batch).tolist()
            return sum(batch.tokens for batch in batches)
        tokens = 0
        for prompt in prompts_of([self.rows[number] for number in first], self.model):
            stream = evaluation.token_stream(self.model, [prompt])
            tokens += len(list(islice(stream, NEW_TOKENS)))
        return tokens


def measure_cost(path: Path, run: Path | None, *, display: Display) -> dict[str, Any]:
    """Memory, FLOPs and latency of a run on its recipe's held-out rows; without a run those of the
    base alone, and how good it is."""
    asked = with_labels(recipe.load(path).recipe)
    subject = _subject(asked, run)
    tokenizer = load_reader(asked.model)
    rows = held_out(subject, asked, None, tokenizer, display)
    loaded = load(
        subject, device=working_device(), on_progress=partial(display.progress, "loading")
    )
    bench = Bench(asked, loaded.base.model, rows, loaded.base.fingerprint)
    forget_peak()
    bench_seconds(bench)
    found: dict[str, Any] = {"inference_peak_bytes": peak_bytes()}
    if loaded.method is None:
        found |= _flops(bench, None) | {"evaluation": _evaluate(bench, tokenizer, display)}
        seconds = {"base": median(bench_seconds(bench) for _ in range(ROUNDS))}
        return found | {"seconds_per_token": seconds}
    loaded.method.detach()
    # what a file holds may be read as another method, whose parts all train
    trained = methods.create(method_of(asked, bench.model), seed=asked.train.seed)
    trained.attach(bench.model, tokenizer=tokenizer)
    found |= _flops(bench, trained)
    trained.detach()
    adapter = subject.read_adapter()
    alternating = alternate(bench, adapter)
    merged, reason = None, "its base is streamed"
    if loaded.base.streamed is None:
        merged, reason = merged_seconds(bench, adapter)
    found["seconds_per_token"] = alternating | {"merged": merged}
    return found | {"not_merged": reason}


def _flops(bench: Bench, method: Method | None) -> dict[str, float | None]:
    """On the row of middle length."""
    asked, rows = bench.asked, bench.rows
    middle = int((-rows.lengths).argsort(kind="stable")[len(rows) // 2])
    loss = losses.make(LossSection(), chunk_size=loss_chunk_size(asked), task=asked.model.task)
    return flops_per_token(bench.model, method, bench.batch(middle), loss)


def alternate(bench: Bench, adapter: AdapterFile) -> dict[str, float]:
    """Median seconds a token with the adapter and without it, taken in turns; it ends detached."""
    attached, base = [], []
    for _ in range(ROUNDS):
        method = adapter.attach(bench.model, base_fingerprint=bench.fingerprint)
        bench.model.eval()
        bench_seconds(bench)
        attached.append(bench_seconds(bench))
        method.detach()
        base.append(bench_seconds(bench))
    return {"attached": median(attached), "base": median(base)}


def merged_seconds(bench: Bench, adapter: AdapterFile) -> tuple[float | None, str]:
    """Seconds a token of the base made dense with the adapter in it, or why there are none."""
    try:
        edits = adapter.merge_edits()
    except CannotMerge as refused:
        return None, refused.faults[0].message
    dtype = getattr(torch, bench.asked.quantization.compute_dtype)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what is kept for later counts as taken
    needed, there = dense_bytes(bench.model, dtype), Machine.probe().device_memory
    if needed > there:
        return None, f"its dense weights take {human(needed)}, and {human(there)} are free"
    turned = bool(adapter.raw.get("fan_in_fan_out"))
    make_dense(bench.model, edits, dtype=dtype, fan_in_fan_out=turned)
    bench_seconds(bench)
    return median(bench_seconds(bench) for _ in range(ROUNDS)), ""


def bench_seconds(bench: Bench) -> float:
    """Seconds a token: each new one of an answer, or each one of a row that is labelled."""
    started = time.perf_counter()
    with evaluation.evaluating(bench.model):
        tokens = bench.once()
    return (time.perf_counter() - started) / tokens


def prompts_of(rows: Sequence[EncodedRow], model: nn.Module) -> list[list[int]]:
    """Their prompts, cut so that the answer fits; of plain text the first half of a row."""
    room = evaluation.context_length(model) // 2 - NEW_TOKENS
    found = [row.prompt_ids or row.input_ids[: len(row.input_ids) // 2 + 1] for row in rows]
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
    if bench.classifies:
        return evaluation.measure_labels(
            bench.model,
            bench.rows,
            scores=losses.scores,
            batch_size=batch_size,
            device=next(bench.model.parameters()).device,
            on_progress=partial(display.progress, "evaluating"),
        ).means()
    return evaluation.evaluate(
        bench.model,
        tokenizer,
        bench.rows,
        bench.asked.eval.model_copy(update={"batch_size": batch_size}),
        loss=losses.CausalLoss(chunk_size=loss_chunk_size(bench.asked)),
        on_progress=display.progress,
    )
