"""Several adapters that take turns on one resident base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.methods import AdapterFile
    from qtune.methods.base import Method
    from qtune.run.subject import Loaded, Subject


class Adapters:
    """The adapters by name, read and checked before any weight; one of them is on the base."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        first, *others = subjects
        self._files: dict[str, tuple[Subject, AdapterFile | None]] = {}
        for subject in subjects:
            _refuse_another_base(first, subject)
            if subject.name in self._files:
                raise UsageError(f"two adapters are called {subject.name}", place="--adapter")
            alone = subject.adapter is None and not others
            self._files[subject.name] = (subject, None if alone else subject.read_adapter())
        self.current = first

    @property
    def names(self) -> list[str]:
        """In the order given."""
        return list(self._files)

    def take(self, name: str, loaded: Loaded) -> Subject:
        """Put another adapter in the place of the one on the base; `UsageError` for no such name,
        `ModelError`, and the one before stays, for an adapter of another base."""
        if name not in self._files:
            raise UsageError(f"no adapter is called {name!r}", hint=f"one of {self._list()}")
        subject, file = self._files[name]
        if subject is self.current or file is None:
            return self.current
        file.require_base(loaded.base.fingerprint)
        if loaded.method is not None:
            loaded.method.detach()
        try:
            loaded.method = _attached(file, loaded)
        except ModelError:
            loaded.method = _attached(self._files[self.current.name][1], loaded)
            raise
        self.current = subject
        return subject

    def _list(self) -> str:
        return ", ".join(self._files)


def _attached(file: AdapterFile | None, loaded: Loaded) -> Method | None:
    if file is None:
        return None
    method = file.attach(loaded.base.model, base_fingerprint=loaded.base.fingerprint)
    loaded.base.model.eval()
    return method


def _refuse_another_base(first: Subject, other: Subject) -> None:
    """`UsageError` unless two subjects work on the same base, held in the same way."""
    for key, ours, theirs in (
        ("model", first.model, other.model),
        ("quantization", first.quantization, other.quantization),
    ):
        if ours != theirs:
            raise UsageError(
                f"{other.name} is for another {key} than {first.name}",
                place="--adapter",
                hint="adapters that take turns share their base and how it is held",
            )
