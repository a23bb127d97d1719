"""`qtune quantize`: keep a 4-bit copy of a model on disk, which later runs load instead of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import hub, models, recipe
from qtune.durable import discard, require_writable
from qtune.errors import OutputError, ResourceError, UsageError
from qtune.models import copies, quantizing
from qtune.plan import read_config, stored_quantization

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtune.models.quantizing import Quantizing
    from qtune.recipe.inputs import ModelSection, QuantizationSection
    from qtune.run.display import Display

SECTIONS = ("quantization.", "model.")


def quantize(
    model: str, target: Path | None, *, overrides: Sequence[str] = (), display: Display
) -> dict[str, Any]:
    """Write the copy into the new folder `target`, or into the user's cache; returns the report."""
    for text in overrides:
        if not text.strip().startswith(SECTIONS):
            raise UsageError(
                "only keys of quantization and model are read here", place=f"--set {text}"
            )
    asked = recipe.for_model(absolute(model), overrides)
    work = quantizing.prepare(asked.model, asked.quantization)
    known = copies.find(work.fingerprint, asked.quantization) if target is None else None
    if known is not None:
        display.line("there is such a copy already")
        return _report(work, known, written=False)
    place = target or copies.place_of(work.fingerprint, asked.quantization)
    if target is None and place.is_dir():
        discard(place)  # not whole, or of another version
    check_target(place, work.folder)
    progress = partial(display.progress, "quantising")
    quantizing.write(work, place, source=short_name(asked.model.name_or_path), on_progress=progress)
    return _report(work, place, written=True)


def provide(
    model: ModelSection,
    quantization: QuantizationSection,
    *,
    say: Callable[[str], None],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Make the copy that a base is streamed from, unless there is one or it is stored as one."""
    if stored_quantization(read_config(models.resolve(model))) is not None:
        return
    work = quantizing.prepare(model, quantization)
    if copies.find(work.fingerprint, quantization) is not None:
        return
    place = copies.place_of(work.fingerprint, quantization)
    if place.is_dir():
        discard(place)
    check_target(place, work.folder)
    say(f"a base that is streamed is read from a 4-bit copy: making one ({place.name})")
    try:
        quantizing.write(
            work, place, source=short_name(model.name_or_path), on_progress=on_progress
        )
    except ResourceError:
        if copies.find(work.fingerprint, quantization) is None:
            raise  # else another run made the same copy meanwhile


def absolute(model: str) -> str:
    """A local folder as an absolute path, anything else as it is."""
    folder = hub.local_folder(model)
    return model if folder is None else str(folder.resolve())


def short_name(name_or_path: str) -> str:
    """A hub id, or a folder's own name: no path of this machine."""
    path = Path(name_or_path)
    return path.name if path.is_dir() else name_or_path


def check_target(target: Path, source: Path) -> None:
    """`OutputError` when something lies there, `ResourceError` when nothing can be written."""
    if target.is_symlink() or (target.exists() and not _is_empty_folder(target)):
        raise OutputError(
            "the output exists already",
            place=str(target),
            hint="name another with -o, or remove it; qtune overwrites nothing",
        )
    if source.resolve() in target.resolve().parents:
        raise OutputError(
            "the output lies inside the model's own folder",
            place=str(target),
            hint="name a folder outside it with -o",
        )
    require_writable(target)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _report(work: Quantizing, place: Path, *, written: bool) -> dict[str, Any]:
    sizes = [path.stat().st_size for path in place.glob("*.safetensors")]
    before = {path: path.stat().st_size for path in set(work.checkpoint.index.values())}
    return {
        "output": str(place),
        "written": written,
        "layers": len(work.names),
        "bytes": sum(sizes),
        "files": len(sizes),
        "source_bytes": sum(before.values()),
        "source_fingerprint": work.fingerprint,
        "quantization": work.quantization.model_dump(mode="json"),
    }
