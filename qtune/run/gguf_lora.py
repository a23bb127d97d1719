"""`qtune export --to gguf-lora`: the LoRA alone, read back, and its effect held against its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune import models, plan
from qtune.durable import write_text
from qtune.errors import UsageError
from qtune.gguf import lora, placing, reading
from qtune.gguf.library import library
from qtune.merging import fidelity
from qtune.methods import exporting
from qtune.models.files import SMALL, locate
from qtune.recipe.inputs import QuantizationSection
from qtune.run import cards, ollama
from qtune.run.export import refuse_untrained
from qtune.run.gguf import Asked, judged
from qtune.run.merge import sample_rows
from qtune.run.subject import load, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.gguf.architecture import Shape
    from qtune.gguf.encoding import Dtype
    from qtune.methods import AdapterFile
    from qtune.run.display import Display
    from qtune.run.subject import Subject

CPU = torch.device("cpu")


def to_gguf_lora(
    thing: str, target: Path, *, base: str | None, asked: Asked, display: Display
) -> dict[str, Any]:
    """Write the LoRA of a run or an adapter as a GGUF file of its own."""
    library()
    dtype: Dtype = asked.dtype or "f32"
    if dtype == "q8_0":
        raise UsageError("a LoRA is written in f32, f16 or bf16", place="--dtype")
    subject = resolve(thing, base=base)
    adapter = exporting.plain(subject.read_adapter(), rank=asked.rank)
    if asked.rank is not None and subject.run is not None:
        refuse_untrained(subject.run, asked.rank)
    folder = locate(subject.model.name_or_path, revision=subject.model.revision, patterns=SMALL)
    shape = lora.shape_of_base(folder, place=subject.base_name)
    lows, alpha = lora.factors(adapter, shape)
    out = placing.outputs(target, name="lora.gguf")
    with out.staged() as staging:
        path = staging / out.gguf
        about = cards.about(subject, folder)
        tensors = lora.write_lora(lows, alpha, shape, path, dtype=dtype, about=about)
        file = reading.File(path)
        lora.compare(lows, file, dtype=dtype)
        found = _verify(subject, adapter, shape, file, display) if asked.verify else None
        tokenizer = models.load_tokenizer(subject.model)
        template = ollama.write(
            staging / out.modelfile,
            base="base.gguf",
            adapter=out.gguf,
            tokenizer=tokenizer,
            ends=ollama.ends_of(folder),
            note=f"the base as GGUF: qtune export {subject.base_name} -o base.gguf --to gguf",
        )
        report: dict[str, Any] = {
            "thing": subject.name,
            "output": str(target),
            "format": "gguf-lora",
            "architecture": shape.architecture.name,
            "dtype": dtype,
            "tensors": len(tensors),
            "bytes": path.stat().st_size,
            "alpha": alpha,
            "ranks": sorted({low.down.shape[0] for low in lows}),
            "template": template.name,
            "verification": found,
            "notes": [template.reason] if template.reason else [],
        }
        write_text(staging / out.card, cards.gguf_card(subject, folder, report, name=out.gguf))
        del file
    return {**report, "files": [str(path) for path in out.paths]}


def _verify(
    subject: Subject, adapter: AdapterFile, shape: Shape, file: reading.File, display: Display
) -> dict[str, Any] | None:
    """The effect of the file's factors on the dense base, against that of the adapter itself; None
    where the base is stored quantised."""
    section = subject.model
    if plan.stored_quantization(plan.read_config(section.name_or_path, section.revision)):
        return None
    dense = QuantizationSection(bits=16, compute_dtype="float32")
    rows, told = sample_rows(subject, shape.vocabulary, display)
    loading = partial(display.progress, "loading")
    bare = replace(subject, quantization=dense, adapter=None)
    held = load(bare, device=CPU, on_progress=loading).base
    method = adapter.attach(held.model, base_fingerprint=held.fingerprint)
    fidelity.widen(held.model)
    logits = fidelity.all_logits(held.model, rows)
    method.detach()
    lora.fold(held.model, file, shape)
    found = fidelity.compare(logits, held.model, rows)
    dtype = file.tensor_kind(min(file.names))
    return {**judged(found, dtype), "rows": told}
