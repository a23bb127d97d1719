"""A new folder with a model in it, whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune import durable
from qtune.errors import ResourceError
from qtune.models.files import INDEX, SMALL
from qtune.models.fingerprint import NOTE
from qtune.plan import human

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

SHARD_BYTES = 5_000_000_000
BESIDE = 2**26  # tokenizer, config and headers, in the room that is asked for
COMPANIONS = (*SMALL, "merges.*", "LICENSE*", "NOTICE*", "USE_POLICY*")


@contextmanager
def new_model(target: Path, size: int, what: str) -> Iterator[Path]:
    """The draft of the new folder `target`, for `what` with so many bytes of weights; it has its
    name when the block ends well. `ResourceError` without room."""
    require_room(target, size)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with durable.new_folder(target) as draft:
            durable.mkdir(draft)
            yield draft
    except OSError as error:
        raise durable.no_room(what, error, place=target.parent, needed=size) from error


def require_room(target: Path, size: int) -> None:
    """`ResourceError` unless the disk has room for so many bytes of weights."""
    free = durable.free_bytes(target.parent)
    if free < size + BESIDE:
        raise ResourceError(
            f"the copy takes {human(size + BESIDE)} of disk, {human(free)} are free",
            place=str(target),
            hint="free some space, or name a folder on another disk with -o",
        )


def copy_companions(folder: Path, draft: Path, *, without: AbstractSet[str] = frozenset()) -> None:
    """Tokenizer, generation settings and licences, unchanged; not config.json, nor `without`."""
    own = {"config.json", INDEX, NOTE, *without}
    found = {path for pattern in COMPANIONS for path in folder.glob(pattern)}
    for path in sorted(found):
        if path.is_file() and path.name not in own:
            durable.copy(path, draft / path.name)
