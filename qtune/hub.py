"""A model's name: a local folder or a hub id, and what the hub refuses, in our words."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

GGUF_HINT = "name the 16-bit checkpoint it was made from"


def is_path(name: str) -> bool:
    """Whether a name can only be meant as a path: a hub id is owner/name, or a bare name."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def local_folder(name: str | Path) -> Path | None:
    """The local folder of that name, or None for a hub id; `ModelError` for a file and for a path
    that leads nowhere."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.suffix == ".gguf" and path.exists():
        raise ModelError("a GGUF file is not a model to train", place=str(path), hint=GGUF_HINT)
    if path.exists():
        hint = f"name its folder: {path.parent}"
        raise ModelError("a model is a folder, not a file", place=str(path), hint=hint)
    if is_path(str(name)):
        hint = "a hub id has the form owner/name"
        raise ModelError("no such folder", place=str(path), hint=hint)
    return None


@contextmanager
def refusals(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises inside the block into a `ModelError`.

    The one single file that qtune asks a repository for is config.json.
    """
    from huggingface_hub import errors

    where = repository if revision is None else f"{repository} at revision {revision}"
    try:
        yield
    except errors.HFValidationError as error:
        hint = "a hub id has the form owner/name"
        raise ModelError(f"{where} is neither a folder nor a hub id", hint=hint) from error
    except errors.GatedRepoError as error:
        hint = "accept its terms on the hub and set HF_TOKEN"
        raise ModelError(f"{where} is gated", hint=hint) from error
    except errors.RevisionNotFoundError as error:
        hint = "check model.revision"
        raise ModelError(f"{repository} has no revision {revision}", hint=hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the spelling; a private one needs HF_TOKEN"
        raise ModelError(f"{where} is neither a folder nor on the hub", hint=hint) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        hint = f"connect, unset HF_HUB_OFFLINE, or bring it here: hf download {repository}"
        message = f"{where} is not in the local cache, and the hub cannot be reached"
        raise ModelError(message, hint=hint) from error
    except errors.EntryNotFoundError as error:
        hint = "is it an adapter or a GGUF repository?"
        raise ModelError(f"{where} holds no config.json", hint=hint) from error
    except OSError as error:
        hint = "connect, or name a local folder"
        raise ModelError(f"{where} cannot be fetched: {error}", hint=hint) from error
