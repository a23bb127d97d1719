"""What goes to the hub: known files only, and nothing from a folder that holds a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtune.errors import Fault, UsageError
from qtune.gguf.placing import SUFFIX
from qtune.run.subject import ADAPTER, MODEL, RECIPE

if TYPE_CHECKING:
    from collections.abc import Iterable

CARD = "README.md"
# Of an adapter, a merged model or a GGUF; other files stay where they are, and that is told.
WANTED = re.compile(
    r"(part-\d+/)?(adapter_model\.safetensors|adapter_config\.json|README\.md)|"
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|config\.json|"
    r"generation_config\.json|tokenizer[\w.-]*|special_tokens_map\.json|added_tokens\.json|"
    r"vocab\.(json|txt)|merges\.txt|chat_template\.\w+|chat_templates/[\w.-]+\.jinja|"
    r"[\w.-]+\.gguf|([\w.-]+\.)?Modelfile|(LICENSE|NOTICE|USE_POLICY)[\w.-]*"
)
STATES = re.compile(r"training\.safetensors|state\.json|(optimizer|scheduler|rng_state).*")
PICKLES = re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt)")
SECRETS = re.compile(
    r"\.env.*|\.?netrc|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519).*|.*\.(pem|key|p12|pfx)|"
    r"credentials.*|secrets?([._-].*)?|token|\.?hf_token.*|\.npmrc|\.pypirc",
    re.IGNORECASE,
)
IN_TEXT = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{32,}|"
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
WEIGHTS = (".safetensors", SUFFIX)


@dataclass(frozen=True)
class Parcel:
    """The files that go, by their names there; `left` are the names of those that stay."""

    kind: str
    files: dict[str, Path]
    left: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Their size together."""
        return sum(path.stat().st_size for path in self.files.values())


def pack(thing: str) -> Parcel:
    """What of a run, an adapter, a model or a GGUF would go; `UsageError` for what must not."""
    path = Path(thing).expanduser()
    parcel = _file(path) if path.is_file() else _folder(_meant(path, thing))
    _refuse_secrets(parcel.files.values())
    return parcel


def _meant(path: Path, thing: str) -> Path:
    """The folder itself, or the adapter of a run."""
    if (path / RECIPE).is_file():
        if not (path / "adapter" / ADAPTER).is_file():
            raise UsageError("the run has no finished adapter", place=thing, hint="train it first")
        return path / "adapter"
    if not path.is_dir():
        raise UsageError("no such run, folder or file", place=thing)
    if not any((path / name).is_file() for name in (ADAPTER, MODEL)) and not [*path.glob("*.gguf")]:
        raise UsageError("neither an adapter, nor a model, nor a GGUF", place=thing)
    return path


def _file(path: Path) -> Parcel:
    """A GGUF with the Modelfile and the card that were written beside it."""
    if path.suffix != SUFFIX:
        raise UsageError("of files only a .gguf goes", place=str(path), hint="name its folder")
    beside = {
        path.name: path,
        f"{path.stem}.Modelfile": path.with_suffix(".Modelfile"),
        CARD: path.with_suffix(".md"),
    }
    return Parcel("gguf", {name: entry for name, entry in beside.items() if entry.is_file()})


def _folder(folder: Path) -> Parcel:
    """The known files of a folder; `UsageError` names all that must not lie among them."""
    names = {
        str(entry.relative_to(folder)): entry
        for entry in sorted(folder.rglob("*"))
        if entry.is_file() or entry.is_symlink()
    }
    faults = [
        Fault(message=why, place=str(entry), hint=hint)
        for entry in names.values()
        for why, hint in [_against(entry)]
        if why
    ]
    if faults:
        raise UsageError.of(faults)
    files = {name: entry for name, entry in names.items() if WANTED.fullmatch(name)}
    kind = "adapter" if ADAPTER in files else "model" if MODEL in files else "gguf"
    return Parcel(kind, files, tuple(name for name in names if name not in files))


def _against(entry: Path) -> tuple[str, str]:
    """(why a file keeps its folder from being sent, what to do); empty when nothing does."""
    if entry.is_symlink():
        return "a link: what it leads to is not in the folder", "replace it with the file"
    if SECRETS.fullmatch(entry.name):
        return "looks like a secret", "move it out of the folder"
    if STATES.fullmatch(entry.name):
        return "the state of a training", "send the run, or export the checkpoint: qtune export"
    if PICKLES.fullmatch(entry.name):
        return "a pickle, which can run code when it is read", "remove it"
    return "", ""


def _refuse_secrets(paths: Iterable[Path]) -> None:
    """`UsageError` for a text that holds what looks like a token or a private key."""
    faults = []
    for path in paths:
        found = None if path.suffix in WEIGHTS else IN_TEXT.search(path.read_bytes())
        if found is not None:
            told = f"holds what looks like a secret ({found[0][:4].decode()}...)"
            faults.append(Fault(message=told, place=str(path), hint="remove it and revoke it"))
    if faults:
        raise UsageError.of(faults)
