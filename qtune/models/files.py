"""Where a base model lies on disk, and which file holds which tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtune import hub
from qtune.artefacts import read_object
from qtune.errors import ModelError, first_few
from qtune.models.shards import tensor_table

if TYPE_CHECKING:
    from qtune.recipe.inputs import ModelSection

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SMALL = ("*.json", "tokenizer*", "*.model", "*.txt", "*.jinja")
WANTED = (*SMALL, "*.safetensors")
UNWANTED = ("original/*", "onnx/*", "consolidated*", "*training_args*", "*optimizer*")


def resolve(model: ModelSection, *, patterns: tuple[str, ...] = WANTED) -> Path:
    """The local folder of a model: itself, or the snapshot of a hub id (offline is honoured), for
    which only files like `patterns` are fetched."""
    if model.offline:
        hub.go_offline()
    return locate(model.name_or_path, revision=model.revision, patterns=patterns)


def locate(
    name_or_path: str, *, revision: str | None = None, patterns: tuple[str, ...] = WANTED
) -> Path:
    """The local folder behind a path or a hub id; only files like `patterns` are fetched."""
    return hub.local_folder(name_or_path) or _snapshot(name_or_path, revision, patterns)


def _snapshot(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    with hub.refusals(repository, revision):
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(UNWANTED),
        )
    return Path(folder)


def shard_index(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, from the index or the only file."""
    if (folder / INDEX).is_file():
        return _from_index(folder)
    if (folder / SINGLE).is_file():
        return dict.fromkeys(tensor_table(folder / SINGLE), folder / SINGLE)
    _explain_absence(folder)
    raise AssertionError("unreachable")


def _from_index(folder: Path) -> dict[str, Path]:
    content = read_object(folder / INDEX).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise ModelError("no weight_map", place=str(folder / INDEX))
    outside = [file for file in content.values() if Path(str(file)).name != file]
    if outside:
        raise ModelError(f"{outside[0]} lies outside its folder", place=str(folder / INDEX))
    missing = sorted({file for file in content.values() if not (folder / file).is_file()})
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(set(content.values()))} weight files are missing: "
            f"{first_few(missing)}",
            place=str(folder),
            hint="copy or download the folder again",
        )
    tables = {file: tensor_table(folder / file) for file in sorted(set(content.values()))}
    for name, file in content.items():
        if name not in tables[file]:
            raise ModelError(
                f"{file} does not hold {name}, which the index promises", place=str(folder)
            )
    return {name: folder / file for file, table in tables.items() for name in table}


def _explain_absence(folder: Path) -> None:
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        hint = f"found {', '.join(others[:3])}; several files need {INDEX}"
        raise ModelError(f"neither {SINGLE} nor {INDEX}", place=str(folder), hint=hint)
    pickles = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt*")))
    if pickles:
        hint = "convert it: load it with transformers and save_pretrained(folder)"
        raise ModelError(
            f"only {pickles[0]}, and qtune reads no pickle (it can run code)",
            place=str(folder),
            hint=hint,
        )
    raise ModelError("no *.safetensors weights", place=str(folder))
