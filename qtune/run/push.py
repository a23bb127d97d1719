"""`qtune push`: an adapter, a merged model or a GGUF to the hub, private unless said otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from qtune import hub, methods, models
from qtune.artefacts import read_object
from qtune.errors import ResourceError, UsageError
from qtune.run import cards, parcel
from qtune.run.subject import ADAPTER, MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.methods import AdapterFile
    from qtune.run.display import Display
    from qtune.run.parcel import Parcel

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Api(Protocol):
    """What is used of huggingface_hub's HfApi."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make the repository if there is none."""

    def repo_info(self, repo_id: str) -> Any:
        """Facts of a repository; `private` is one."""

    def create_commit(self, repo_id: str, operations: Sequence[Any], *, commit_message: str) -> Any:
        """All files in one commit."""


def push(
    thing: str,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    display: Display,
    api: Api | None = None,
) -> dict[str, Any]:
    """Send a thing to the hub in one commit; with `dry_run` only say what would go."""
    if not NAME.fullmatch(repository):
        raise UsageError("a repository has the form owner/name", place=repository)
    packed = parcel.pack(thing)
    adapter = _whole(packed)
    card = None  # of an adapter that has none: nothing goes without saying what it is
    if adapter is not None and parcel.CARD not in packed.files:
        card = cards.of_adapter(adapter, thing)
    listed = [{"name": name, "bytes": path.stat().st_size} for name, path in packed.files.items()]
    if card is not None:
        listed.append({"name": parcel.CARD, "bytes": len(card.encode())})
    report: dict[str, Any] = {
        "thing": thing,
        "repository": repository,
        "kind": packed.kind,
        "private": not public,
        "dry_run": dry_run,
        "files": listed,
        "bytes": sum(entry["bytes"] for entry in listed),
        "left": list(packed.left),
        "url": None,
    }
    if dry_run:
        return report
    _refuse_offline()
    to = api or _api()
    display.line(f"sending {len(listed)} files to {repository}")
    return {**report, "url": _send(to, repository, packed, card, public=public)}


def _whole(packed: Parcel) -> AdapterFile | None:
    """The adapter, read as for an evaluation; `ModelError` for what is broken of it or a model."""
    for path in packed.files.values():
        if path.suffix == ".json":
            read_object(path)
    if packed.kind == "adapter":
        return methods.read(packed.files[ADAPTER].parent)
    if packed.kind == "model":
        models.shard_index(packed.files[MODEL].parent)
    return None


def _refuse_offline() -> None:
    if reason := hub.why_offline():
        raise UsageError(
            f"nothing can be sent: {reason}", hint="see what would go with --dry-run, or unset it"
        )


def _api() -> Api:
    """huggingface_hub's own, with the person's token; `UsageError` when there is none."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UsageError("no token of the hub is known", hint="set HF_TOKEN, or run: hf auth login")
    api: Api = HfApi()
    return api


def _send(api: Api, repository: str, packed: Parcel, card: str | None, *, public: bool) -> str:
    """All files in one commit; its address."""
    from huggingface_hub import CommitOperationAdd

    contents: dict[str, Any] = {name: str(path) for name, path in packed.files.items()}
    if card is not None:
        contents[parcel.CARD] = card.encode()
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in contents.items()
    ]
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        if not public and api.repo_info(repository).private is False:
            raise UsageError(
                "the repository is there already, and public",
                place=repository,
                hint="add --public, or name another",
            )
        done = api.create_commit(repository, operations, commit_message="qtune push")
    except OSError as error:  # also what huggingface_hub raises of an HTTP answer
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ResourceError(
            f"the hub did not take it: {reason}",
            place=repository,
            hint="check the name, the token's right to write, and the connection",
        ) from error
    return str(getattr(done, "commit_url", done))
