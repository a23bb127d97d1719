"""The run folder as processes see it that leave the writing to the first one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtune.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path


class Onlooker(RunFolder):
    """Reads what is there, holds and writes nothing; it may be a folder of another machine."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """The first process holds it."""
        yield

    def create(self, *, recipe_yaml: str, plan: dict[str, Any], env: dict[str, Any]) -> None:
        """Nothing."""

    def reopen(self, *, recipe_yaml: str, plan: dict[str, Any], env: dict[str, Any]) -> None:
        """Nothing."""

    def require_space(self, bytes_needed: int) -> None:
        """Nothing."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is written, so nothing can fail."""
        yield

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def cut_metrics(self, step: int, *, evaluated: bool) -> None:
        """Nothing."""

    def save_checkpoint(
        self,
        step: int,
        fill: Callable[[Path], None],
        *,
        facts: dict[str, Any],
        newest: int,
        pinned: Collection[int] = (),
    ) -> None:
        """Nothing."""

    def publish(self, step: int) -> None:
        """Nothing."""

    def write_diverged(self, message: str, *, rows: Collection[str]) -> None:
        """Nothing."""

    def write_report(self, report: dict[str, Any]) -> None:
        """Nothing."""
