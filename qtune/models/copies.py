"""Quantised copies of base models in the user's cache: where one lies, and whether it is whole.

A copy is taken for its source only if it says the same fingerprint and quantisation, and its own
bytes are those that were written.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.artefacts import read_object
from qtune.errors import QtuneError
from qtune.models.fingerprint import NOTE, of_files

if TYPE_CHECKING:
    from qtune.recipe.inputs import QuantizationSection

log = logging.getLogger(__name__)
FORMAT = 1
_SHORT = 16  # of a fingerprint, in a folder's name; the whole one is inside


def home() -> Path:
    """The folder of all copies."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "qtune" / "models"


def place_of(fingerprint: str, quantization: QuantizationSection) -> Path:
    """Where the copy of a base with these settings lies, or would."""
    constants = "double" if quantization.double_quant else "single"
    name = [fingerprint[:_SHORT], quantization.quant_type, constants, quantization.compute_dtype]
    if quantization.skip_modules:
        skipped = "\n".join(sorted(quantization.skip_modules))
        name.append(hashlib.sha256(skipped.encode()).hexdigest()[:8])
    return home() / "-".join(name)


def settings_of(quantization: QuantizationSection) -> dict[str, Any]:
    """What decides the bytes of a copy, for its note."""
    return quantization.model_dump(mode="json") | {
        "skip_modules": sorted(quantization.skip_modules)
    }


def find(fingerprint: str, quantization: QuantizationSection) -> Path | None:
    """The whole copy of a base, if there is one; one that is not whole is told of."""
    if quantization.bits != 4:
        return None
    folder = place_of(fingerprint, quantization)
    if not folder.is_dir():
        return None
    try:
        fault = _fault(folder, fingerprint, quantization)
    except QtuneError as error:
        fault = str(error)
    if fault:
        log.warning("the quantised copy %s is not used: %s", folder.name, fault)
        return None
    return folder


def _fault(folder: Path, fingerprint: str, quantization: QuantizationSection) -> str:
    note = read_object(folder / NOTE)
    if note.get("format") != FORMAT:
        return "another version of qtune wrote it"
    if note.get("source") != fingerprint or note.get("quantization") != settings_of(quantization):
        return "it was made of another model, or with other settings"
    if note.get("content") != of_files(folder):
        return "its files were changed"
    return ""
