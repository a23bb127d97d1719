"""The run folder: what a run leaves behind, and where.

runs/<name>/
  recipe.yaml plan.json env.json     what was asked, decided, and where it ran
  metrics.jsonl log.txt              every logged step and evaluation; the log
  checkpoints/step-000250/           weights of one step
  adapter/                           the result, in PEFT's file format
  eval.json report.json              measures; what the run did
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from qtune.durable import make_folder, require_writable, write_json, write_text
from qtune.errors import OutputError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class RunFolder:
    """One run's folder; made only when the run is about to learn, never over another's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log.txt"

    def check(self) -> None:
        """Raise `OutputError` if something is there, `ResourceError` if nothing can be."""
        if self.path.is_file():
            raise OutputError("the output is a file", place=str(self.path), hint="name a folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise OutputError(
                "the output folder is not empty",
                place=str(self.path),
                hint="name another with -o, or remove it; qtune overwrites nothing",
            )
        require_writable(self.path)

    def create(self, *, recipe_yaml: str, plan: dict[str, Any], env: dict[str, Any]) -> None:
        """Make the folder and write what was asked and decided: all of it, or no folder."""
        self.check()
        claimed = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim()
            claimed = True
            write_text(self.path / "recipe.yaml", recipe_yaml)
            write_json(self.path / "plan.json", plan)
            write_json(self.path / "env.json", env)
        except OSError as error:
            self._undo(claimed=claimed)
            raise ResourceError(
                f"cannot write the run folder: {error.strerror}", place=str(self.path)
            ) from error

    def _undo(self, *, claimed: bool) -> None:
        """Take the folder back: all of it when it is ours alone, else only an empty one."""
        if claimed:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        with suppress(OSError):
            self.path.rmdir()

    def _claim(self) -> None:
        """Of two runs that start at once, one gets the folder."""
        try:
            self.log.open("x").close()
        except FileExistsError as error:
            raise OutputError(
                "another run has just taken the folder",
                place=str(self.path),
                hint="name another with -o",
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tell a full disk, or a folder taken away, as `ResourceError` with what is safe."""
        try:
            yield
        except ConnectionError:  # a tracker's, not the disk's
            raise
        except OSError as error:
            saved = sorted(path.name for path in self.checkpoints.glob("step-*"))
            kept = f"; checkpoints/{saved[-1]} is whole" if saved else ""
            raise ResourceError(
                f"cannot write any more: {error.strerror or error}",
                place=str(self.path),
                hint=f"see to the disk and rerun with another -o{kept}",
            ) from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl; it is on its way to the disk when this returns."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, allow_nan=False) + "\n")

    def checkpoint(self, step: int) -> Path:
        """Where the weights after `step` optimizer steps lie."""
        return self.checkpoints / f"step-{step:06d}"

    def save_checkpoint(self, step: int, save: Callable[[Path], None], *, keep: set[int]) -> None:
        """Save the weights of `step` through `save`, then remove all but `step` and `keep`."""
        target = self.checkpoint(step)
        if not target.exists():
            self.checkpoints.mkdir(exist_ok=True)
            make_folder(target, save)
        kept = {self.checkpoint(number) for number in keep | {step}}
        for old in self.checkpoints.glob("step-*"):
            if old not in kept:
                shutil.rmtree(old)

    def publish(self, step: int) -> None:
        """Make the weights of `step` the run's result."""
        make_folder(self.adapter, lambda draft: shutil.copytree(self.checkpoint(step), draft))

    def write_report(self, report: dict[str, Any]) -> None:
        """Write report.json, last."""
        write_json(self.path / "report.json", report)
