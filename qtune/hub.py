"""A model's name: a local folder or a hub id, and what the hub refuses, in our words."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qtune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Two libraries, one answer: a setting of the person's for one of them must not open it again.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_SWITCH = {"thrown": False}
GGUF_HINT = "name the 16-bit checkpoint it was made from"


def go_offline() -> None:
    """Keep huggingface_hub, datasets and transformers off the network for this whole process.

    They look once, when they are imported: `UsageError` when that was before, with a network.
    """
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    known = sys.modules.get("huggingface_hub.constants")
    if known is not None and not known.HF_HUB_OFFLINE:
        raise UsageError(
            "model.offline comes too late: huggingface_hub is loaded with a network already",
            hint="set HF_HUB_OFFLINE=1 before the process starts",
        )
    _SWITCH["thrown"] = True


def why_offline() -> str:
    """What keeps the process off the network; empty when nothing does."""
    if _SWITCH["thrown"]:
        return "model.offline is set"
    asked = os.environ.get("HF_HUB_OFFLINE", "0") not in {"", "0"}
    return "HF_HUB_OFFLINE is set" if asked else ""


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
        bring = f"bring it here: hf download {repository}"
        offline = why_offline()
        reason = offline or "the hub cannot be reached"
        message = f"{where} is not in the local cache, and {reason}"
        hint = bring if offline else f"connect, or {bring}"
        raise ModelError(message, hint=hint) from error
    except errors.EntryNotFoundError as error:
        hint = "is it an adapter or a GGUF repository?"
        raise ModelError(f"{where} holds no config.json", hint=hint) from error
    except OSError as error:
        hint = "connect, or name a local folder"
        raise ModelError(f"{where} cannot be fetched: {error}", hint=hint) from error
