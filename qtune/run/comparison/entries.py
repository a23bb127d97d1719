"""What is compared: each word of `--methods` as a recipe, the given one with another method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.errors import Fault, QtuneError, UsageError
from qtune.recipe import shipped
from qtune.recipe.extends import read_file
from qtune.recipe.inputs import QuantizationSection
from qtune.recipe.keys import METHODS
from qtune.recipe.rule import held_out
from qtune.recipe.writing import flow
from qtune.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.recipe import Loaded, Recipe
    from qtune.recipe.layers import Layer

_ALLOWED = shipped.FRAGMENT_SECTIONS["method"]


@dataclass(frozen=True)
class Entry:
    """One row of the comparison: a recipe, or why there is none."""

    label: str
    asked: Recipe | None
    fault: Fault | None = None
    reference: bool = False
    """The base alone: nothing is trained."""


@dataclass(frozen=True)
class Given:
    """The recipe that is compared under, read anew for each method."""

    path: str | Path
    overrides: tuple[str, ...]
    loaded: Loaded

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str]) -> Given:
        """Read it; `UsageError` also where nothing is held out to measure on."""
        loaded = recipe.load(path, overrides)
        if not held_out(loaded.recipe):
            raise UsageError(
                "runs are compared on held-out rows, and there are none",
                place=str(path),
                hint="set data.eval or data.val_size",
            )
        return cls(path, tuple(overrides), loaded)

    def entry(self, word: str) -> Entry:
        """The recipe with the method that a word names; an unknown word is a `UsageError`."""
        label, said = _said(word)
        settings = [f"{key}={flow(value)}" for key, value in (self._shared(said) | said).items()]
        try:
            asked = recipe.load(self.path, [*self.overrides, *settings]).recipe
        except QtuneError as error:  # the recipe itself is sound
            return Entry(label, None, error.faults[0])
        return Entry(label, without_folder(asked))

    def _shared(self, said: dict[str, Any]) -> dict[str, Any]:
        """The keys of the recipe's method that this one has, too, and says nothing about."""
        name = said.get("method.name", self.loaded.recipe.method.name)
        own = METHODS[name].model_fields if name in METHODS else {}
        section = self.loaded.recipe.method
        shared = {}
        for key in own:
            path = f"method.{key}"
            origin = self.loaded.origins.get(path)
            if key != "name" and path not in said and origin and origin.kind != "default":
                shared[path] = getattr(section, key)
        return shared


def entries(given: Given, words: Sequence[str]) -> list[Entry]:
    """The rows in order; two of one label, or none at all, are a `UsageError`."""
    found = [given.entry(word) for word in words]
    labels = [entry.label for entry in found]
    if not labels:
        raise UsageError("--methods names none", hint=f"known: {', '.join(METHODS)}")
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"--methods names {label} twice", hint="name a file otherwise")
    return found


def references(asked: Recipe) -> Iterator[Entry]:
    """The base in 16 bits, which merged adapters are compared with, and in NF4."""
    held = asked.quantization
    dense = QuantizationSection(bits=16, compute_dtype=held.compute_dtype)
    nf4 = held if held.bits == 4 else QuantizationSection(compute_dtype=held.compute_dtype)
    for quantization in (dense, nf4):
        name = quantization.compute_dtype if quantization.bits == 16 else quantization.quant_type
        changed = asked.model_copy(update={"quantization": quantization})
        yield Entry(f"base-{name}", without_folder(changed), reference=True)


def without_folder(asked: Recipe) -> Recipe:
    """The recipe without its output folder, which is the comparison's."""
    section = asked.train.model_copy(update={"output_dir": None})
    return asked.model_copy(update={"train": section})


def _said(word: str) -> tuple[str, dict[str, Any]]:
    """(label, keys and values) of a method's name, a fragment or a file."""
    if word in METHODS:
        return word, {"method.name": word}
    path = Path(word).expanduser()
    fragment = shipped.folder("configs") / f"{word}.yaml"
    if not path.is_file() and word.startswith("method/") and fragment.is_file():
        path = fragment
    if not path.is_file():
        known = [*METHODS, *(name for name in shipped.fragments() if name.startswith("method/"))]
        raise UsageError(f"no method, fragment or file {word!r}", hint=nearest(word, known))
    faults: list[Fault] = []
    layer = read_file(path, name=word, faults=faults)
    faults += [
        Fault(
            message=f"{section}: a compared method sets {', '.join(sorted(_ALLOWED))} only",
            place=word,
        )
        for section in layer.settings.keys() - _ALLOWED
    ]
    if faults:
        raise UsageError.of(faults)
    return path.stem, _values(layer)


def _values(layer: Layer) -> dict[str, Any]:
    return {
        f"{section}.{key}": node.plain()
        for section, keys in layer.settings.items()
        for key, node in keys.items()
    }


def seeded(asked: Recipe, seed: int) -> Recipe:
    """The recipe with another seed; a run of it that was stopped goes on by itself."""
    train = asked.train.model_copy(update={"seed": seed})
    checkpoint = asked.checkpoint.model_copy(update={"resume": "auto"})
    return asked.model_copy(update={"train": train, "checkpoint": checkpoint})


def refused(entry: Entry, fault: Fault) -> Entry:
    """The entry with the reason why it is not run."""
    return replace(entry, fault=fault)
