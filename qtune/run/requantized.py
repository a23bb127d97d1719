"""A merged model quantised to NF4 again: lossy, so that its config and card say by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.durable import mkdir, rename, rmdir, unlink, write_json
from qtune.merging import fidelity, layerwise
from qtune.models import quantizing
from qtune.recipe.inputs import QuantizationSection

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.merging import Fidelity
    from qtune.run.merge import Trained
    from qtune.run.subject import Subject

LABEL = "qtune_lossy"
INSIDE = "quantized"


def quantize(subject: Subject, trained: Trained, staging: Path) -> Fidelity:
    """Put NF4 files in the place of the merged ones, in the layout that plain transformers loads;
    how far they are from the trained model."""
    own = subject.quantization
    skipped = own.skip_modules if own.bits == 4 else ()
    dtype = own.compute_dtype
    quantization = QuantizationSection(skip_modules=skipped, compute_dtype=dtype)
    section = subject.model.model_copy(update={"name_or_path": str(staging)})
    work = quantizing.prepare(section, quantization)
    inside = staging / INSIDE
    if inside.is_dir():
        for path in inside.iterdir():  # of a process that was killed
            unlink(path)
    else:
        mkdir(inside)
    trained.display.line("quantising the merged model to NF4")
    quantizing.write_weights(work, inside)
    for path in staging.glob("model*.safetensors*"):
        unlink(path)
    for path in sorted(inside.iterdir()):
        rename(path, staging / path.name)
    rmdir(inside)
    config = quantizing.config_of(work)
    write_json(staging / "config.json", config)
    network = layerwise.merged(staging, section, quantization)
    rows = [row for row in trained.rows if not isinstance(row, torch.Tensor)]
    found = fidelity.against(trained.logits, layerwise.logits(network, rows))
    write_json(staging / "config.json", {**config, LABEL: {"quantize": "nf4", **found.to_dict()}})
    return found
