"""What a person points at: a run folder, an adapter, or a model, and how its base is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from qtune import hub, methods, models, plan, recipe
from qtune.artefacts import read_object
from qtune.errors import ModelError, UsageError
from qtune.ops.linears import CLASSIFIERS
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.writing import flow
from qtune.run.allocator import give_back_at_once
from qtune.run.quantize import provide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qtune.methods import AdapterFile
    from qtune.methods.base import Method
    from qtune.models import Base
    from qtune.recipe.sections import Recipe
    from qtune.recipe.steps import Base as Placement

log = logging.getLogger(__name__)
RECIPE, ADAPTER, MODEL, PLAN = "recipe.yaml", "adapter_config.json", "config.json", "plan.json"


@dataclass(frozen=True)
class Subject:
    """A model to work with: a base, and perhaps an adapter on it and the recipe of its run."""

    kind: Literal["run", "adapter", "model"]
    name: str
    model: ModelSection
    quantization: QuantizationSection
    adapter: Path | None = None
    recipe: Recipe | None = None
    run: Path | None = None

    @property
    def base_name(self) -> str:
        """The base's hub id, or its folder's own name: no path of this machine."""
        path = Path(self.model.name_or_path)
        return path.name if path.is_dir() else self.model.name_or_path

    def read_adapter(self) -> AdapterFile:
        """The adapter's files, checked; `UsageError` when the subject is a plain model."""
        if self.adapter is None:
            raise UsageError(
                f"{self.name} is a model without an adapter",
                hint="name a run folder, or an adapter folder with adapter_config.json",
            )
        return methods.read(self.adapter)


@dataclass
class Loaded:
    """A subject in memory; `method` is attached to the base's model."""

    base: Base
    method: Method | None


def resolve(thing: str, *, base: str | None = None, overrides: Sequence[str] = ()) -> Subject:
    """Tell what `thing` is; `base` names the base model of an adapter that lies alone."""
    if not thing:
        raise UsageError("no run, adapter or model is named")
    path = Path(thing).expanduser()
    if path.is_file():
        raise UsageError(
            "a file, where a run folder, an adapter folder or a model is wanted",
            place=thing,
            hint="a recipe is trained first: qtune train"
            if path.suffix in (".yaml", ".yml")
            else "",
        )
    if path.is_dir():
        return _folder(path, base=base, overrides=overrides)
    if hub.is_path(thing):
        raise UsageError("no such folder", place=thing)
    return _model(ModelSection(name_or_path=thing), name=thing)


def _folder(path: Path, *, base: str | None, overrides: Sequence[str]) -> Subject:
    if (path / RECIPE).is_file():
        return _run(path, path / "adapter", kind="run", base=base, overrides=overrides)
    if (path / ADAPTER).is_file():
        run = run_of(path.resolve())
        if run is not None:
            return _run(run, path, kind="adapter", base=base, overrides=overrides)
        return _lone_adapter(path, base=base)
    if (path / MODEL).is_file():
        section = ModelSection(name_or_path=str(path.resolve()))
        return _model(section, name=path.resolve().name)
    raise UsageError(
        f"neither a run ({RECIPE}), nor an adapter ({ADAPTER}), nor a model ({MODEL})",
        place=str(path),
    )


def run_of(adapter: Path) -> Path | None:
    """runs/x for runs/x/adapter and runs/x/checkpoints/step-000100; None for a lone adapter, which
    may lie beside a recipe that it has nothing to do with."""
    run = adapter.parent.parent if adapter.parent.name == "checkpoints" else adapter.parent
    own = run != adapter.parent or adapter.name == "adapter"
    return run if own and (run / RECIPE).is_file() else None


def _run(
    run: Path,
    adapter: Path,
    *,
    kind: Literal["run", "adapter"],
    base: str | None,
    overrides: Sequence[str],
) -> Subject:
    if not (adapter / ADAPTER).is_file():
        checkpoints = sorted((run / "checkpoints").glob("step-*"))
        raise ModelError(
            "the run has no finished adapter",
            place=str(run),
            hint=f"name a checkpoint, such as {checkpoints[-1]}"
            if checkpoints
            else "train it first",
        )
    settings = [*overrides, f"model.name_or_path={flow(base)}"] if base else overrides
    asked = recipe.load(run / RECIPE, settings).recipe
    trained_on = Path(asked.model.name_or_path)
    if base is None and trained_on.is_absolute() and not trained_on.is_dir():
        raise ModelError(
            "the run's base model is not there", place=str(trained_on), hint="add --base-model"
        )
    return Subject(
        kind=kind,
        name=run.resolve().name if kind == "run" else f"{run.resolve().name}/{adapter.name}",
        model=asked.model,
        quantization=asked.quantization,
        adapter=adapter,
        recipe=asked,
        run=run,
    )


def _lone_adapter(path: Path, *, base: str | None) -> Subject:
    found = methods.read(path)
    name = base or found.base_model
    if not name:
        raise UsageError(
            "the adapter does not say its base", place=str(path), hint="add --base-model"
        )
    local = Path(name).expanduser()
    if base is None and not local.is_dir() and "/" not in name:
        raise UsageError(
            f"the adapter's base {name!r} is no folder here",
            place=str(path),
            hint="add --base-model",
        )
    section = ModelSection(name_or_path=str(local.resolve()) if local.is_dir() else name)
    if task := found.facts.get("recipe", {}).get("model"):
        section = ModelSection.model_validate(section.model_dump() | task)
    return Subject(
        kind="adapter",
        name=path.resolve().name,
        model=section,
        quantization=_trained_quantization(found, section),
        adapter=path,
    )


def _trained_quantization(found: AdapterFile, section: ModelSection) -> QuantizationSection:
    """How the base was held when the adapter learnt: as its file says, or as the base is stored.

    Other tools write down neither; theirs is loaded as qtune's default, and that is said.
    """
    noted = found.facts.get("recipe", {}).get("quantization")
    if noted is not None:
        return QuantizationSection.model_validate(noted)
    stored = _stored_quantization(section)
    if stored is None:
        log.warning(
            "%s does not say how its base was quantised: taking NF4 with double quantisation",
            found.folder.name,
        )
    return stored or QuantizationSection()


def _model(section: ModelSection, *, name: str) -> Subject:
    config = plan.read_config(models.resolve(section))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    section = _of_classifier(section, config)
    dense = QuantizationSection(
        bits=16, compute_dtype="float32" if dtype == "float32" else "bfloat16"
    )
    return Subject("model", name, section, _stored_quantization(section) or dense)


def _of_classifier(section: ModelSection, config: Mapping[str, Any]) -> ModelSection:
    """The section with its task and labels, where a model says that it labels texts or images."""
    named = config.get("architectures") or [""]
    labels = config.get("id2label")
    if not str(named[0]).endswith(CLASSIFIERS) or not isinstance(labels, dict):
        return section
    names = tuple(str(labels[number]) for number in sorted(labels, key=int))
    return section.model_copy(update={"task": "classification", "labels": names})


def _stored_quantization(section: ModelSection) -> QuantizationSection | None:
    """How a checkpoint says it is quantised by bitsandbytes; None for a dense one."""
    stored = plan.stored_quantization(plan.read_config(models.resolve(section)))
    if stored is None:
        return None
    if stored.bits == 8:
        return QuantizationSection(bits=8)
    return QuantizationSection(
        bits=4,
        quant_type=stored.quant_type,
        double_quant=stored.double_quant,
        compute_dtype=stored.compute_dtype,
    )


def refuse_overrides(subject: Subject, overrides: Sequence[str]) -> None:
    """`UsageError` when there are overrides and no recipe to change."""
    if overrides and subject.recipe is None:
        raise UsageError("--set changes a recipe, and there is none", hint="name a run folder")


def load(
    subject: Subject, *, device: torch.device, on_progress: Callable[[int, int], None] | None = None
) -> Loaded:
    """The base as it was trained on, with the adapter live; `ModelError` if they do not fit."""
    adapter = subject.read_adapter() if subject.adapter is not None else None
    placement = _placement(subject)
    if placement == "stream":
        give_back_at_once()
        provide(subject.model, subject.quantization, say=log.info, on_progress=on_progress)
    base = models.load(
        subject.model,
        subject.quantization,
        device=device,
        activations="none",
        base=placement,
        on_progress=on_progress,
    )
    base.model.eval()
    if adapter is None:
        return Loaded(base, None)
    return Loaded(base, adapter.attach(base.model, base_fingerprint=base.fingerprint))


def _placement(subject: Subject) -> Placement:
    """Where the base is held: as the recipe says, or as the run's plan chose."""
    if subject.recipe is None or subject.quantization.bits != 4:
        return "resident"
    if subject.recipe.memory.base != "auto":
        return subject.recipe.memory.base
    planned = subject.run / PLAN if subject.run else None
    if planned is None or not planned.is_file():
        return "resident"
    return "stream" if read_object(planned).get("base") == "stream" else "resident"


def working_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
