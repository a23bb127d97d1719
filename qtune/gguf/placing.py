"""A file and what goes with it, or a folder of them: all under their names, or none."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune import durable
from qtune.errors import OutputError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".gguf"


@dataclass(frozen=True)
class Outputs:
    """Where the parts of an export are written first, and the names they get.

    The first is a hidden folder beside the target. A target that ends in .gguf is that file, with
    the others beside it under its name; any other is a new folder for all.
    """

    target: Path
    gguf: str
    modelfile: str
    card: str

    @property
    def single(self) -> bool:
        """Whether the target is a file."""
        return self.target.suffix == SUFFIX

    @property
    def paths(self) -> list[Path]:
        """What there will be, the GGUF file last: who sees it sees the others."""
        folder = self.target.parent if self.single else self.target
        return [folder / name for name in (self.card, self.modelfile, self.gguf)]

    def refuse_existing(self) -> None:
        """`OutputError` if one of the names is taken; qtune overwrites nothing."""
        durable.require_writable(self.target)
        wanted = self.paths if self.single else [self.target]
        for path in wanted:
            taken = path.is_symlink() or path.exists()
            if taken and not (path.is_dir() and not self.single and not any(path.iterdir())):
                raise OutputError(
                    "the output exists already",
                    place=str(path),
                    hint="name another with -o, or remove it; qtune overwrites nothing",
                )

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """The hidden folder to write into; its files get their names at the end of the block."""
        self.refuse_existing()
        draft = durable.hidden(self.target, "draft")
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            durable.mkdir(draft)
            try:
                yield draft
                self._name(draft)
            finally:
                if draft.is_dir():
                    durable.remove_tree(draft)
        except OSError as error:
            raise ResourceError(
                f"cannot write the output: {error.strerror}",
                place=str(self.target),
                hint="nothing was kept",
            ) from error

    def _name(self, draft: Path) -> None:
        durable.flush_tree(draft)
        self.refuse_existing()
        if self.single:
            for path in self.paths:
                durable.rename(draft / path.name, path)
        else:
            durable.put(draft, self.target) if not self.target.exists() else self._into(draft)
        durable.flush(self.target.parent)

    def _into(self, draft: Path) -> None:
        """Into an empty folder that is there."""
        durable.rmdir(self.target)
        durable.rename(draft, self.target)


def outputs(target: Path, *, name: str) -> Outputs:
    """The outputs of a target; `name` is that of the GGUF file in a new folder."""
    if target.suffix == SUFFIX:
        return Outputs(target, target.name, f"{target.stem}.Modelfile", f"{target.stem}.md")
    return Outputs(target, name, "Modelfile", "README.md")
