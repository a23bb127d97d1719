"""The run folder: what a run leaves behind, and where.

runs/<name>/
  recipe.yaml plan.json env.json     what was asked, decided, and where it ran
  metrics.jsonl log.txt              every logged step, evaluation and reading; the log
  samples.jsonl report.html          some held-out answers on the way; the run as a page
  checkpoints/step-000250/           adapter and training state after one step
  adapter/                           the result, in PEFT's file format
  eval.json report.json              measures; what the run did
  recipe.lock.yaml                   the recipe with what it was made of, to repeat the run
  gates.json junit.xml summary.md    the gates judged, for CI systems and people
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from qtune import durable
from qtune.artefacts import read_object
from qtune.durable import require_writable, write_json, write_text
from qtune.errors import OutputError, ResourceError
from qtune.runs import checkpoint, lock
from qtune.runs.page import portable_text
from qtune.sizes import human

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

_BESIDE_CHECKPOINTS = 16 * 2**20  # log, metrics, reports
_RESULT = "adapter_*"  # the files of a checkpoint that are the adapter


def space_needed(*, checkpoint: int, adapter: int, kept: int) -> int:
    """Bytes a run needs when each checkpoint has `checkpoint`, and `kept` stay at once: a new one
    is whole before an old one goes."""
    return (kept + 1) * checkpoint + adapter


class RunFolder:
    """One run's folder, used by one process at a time, never over another run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log.txt"
        self._recipe = path / "recipe.yaml"
        self._report = path / "report.json"
        self._is_held = False
        self._damaged: set[int] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process, made where it is absent; one that is still empty at
        the end is taken away again. `OutputError` names the process that has it."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError("the output is a file", place=str(self.path), hint="name a folder")
        made = self._make()
        try:
            with lock.hold(self.path):
                self._is_held = True
                yield
        finally:
            self._is_held = False
            with suppress(OSError):  # the first that is not empty ends it
                for folder in made:
                    folder.rmdir()

    def _make(self) -> list[Path]:
        """Make the folder; returns it and those above it that were not there, innermost first."""
        require_writable(self.path)
        absent = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make the run folder: {error.strerror}"
            raise ResourceError(message, place=str(self.path)) from error
        return absent

    def holds_run(self) -> bool:
        """Whether a run has begun here: its recipe is what is written last of what it starts with,
        so one that ended before is as if it had not been."""
        return self._recipe.is_file() and (self.path / "plan.json").is_file()

    def check(self) -> None:
        """Raise `OutputError` if something is there, `ResourceError` if nothing can be."""
        if self.path.is_file():
            raise OutputError("the output is a file", place=str(self.path), hint="name a folder")
        if self.path.is_dir() and self._foreign():
            raise OutputError(
                "the output folder is not empty",
                place=str(self.path),
                hint="name another with -o, or remove it; qtune overwrites nothing",
            )
        require_writable(self.path)

    def _foreign(self) -> set[str]:
        """Names that no run left here that ended before it had begun; all, if one has."""
        ours = {lock.NAME}
        if not self.holds_run() and self.log.is_file() and not self.log.stat().st_size:
            ours |= {self.log.name, "plan.json", "env.json"}
        return {
            path.name
            for path in self.path.iterdir()
            if path.name not in ours and not durable.is_leftover(path)
        }

    def create(self, *, recipe_yaml: str, plan: dict[str, Any], env: dict[str, Any]) -> None:
        """Write what was asked and decided into the held folder: all of it, or nothing."""
        self.check()
        try:
            self.log.touch()
            self._write_start(recipe_yaml, plan, env)
        except OSError as error:
            for name in ("recipe.yaml", "plan.json", "env.json", "log.txt"):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)
            needed = len(recipe_yaml) + len(json.dumps([plan, env], indent=2))
            raise durable.no_room(
                "the run folder", error, place=self.path, needed=needed
            ) from error

    def reopen(self, *, recipe_yaml: str, plan: dict[str, Any], env: dict[str, Any]) -> None:
        """Go on in the held folder of a run: what is asked and decided now replaces what was."""
        with self.writing():
            self._write_start(recipe_yaml, plan, env)

    def _write_start(self, recipe_yaml: str, plan: dict[str, Any], env: dict[str, Any]) -> None:
        assert self._is_held, "the folder is not held"
        durable.sweep(self.path)
        write_json(self.path / "plan.json", plan)
        write_json(self.path / "env.json", env)
        write_text(self._recipe, recipe_yaml)

    def require_space(self, bytes_needed: int) -> None:
        """`ResourceError` unless the disk has room for what the run will write in all; what its
        checkpoints take already counts as room."""
        taken = checkpoint.size(self.checkpoints) if self.checkpoints.is_dir() else 0
        needed = bytes_needed + _BESIDE_CHECKPOINTS
        room = durable.free_bytes(self.path) + taken
        if room < needed:
            raise ResourceError(
                f"the run needs {human(needed)} of disk, {human(room)} are free",
                place=str(self.path),
                hint="free some space, keep fewer checkpoints, or name another disk with -o",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tell a full disk, or a folder taken away, as `ResourceError` with what is safe."""
        try:
            yield
        except ConnectionError:  # a tracker's, not the disk's
            raise
        except OSError as error:
            saved = sorted(checkpoint.checkpoints(self.checkpoints).items())
            kept = f"; checkpoints/{saved[-1][1].name} is saved" if saved else ""
            free = human(durable.free_bytes(self.path))
            raise ResourceError(
                f"cannot write any more: {error.strerror or error}; {free} are free",
                place=str(self.path),
                hint=f"see to the disk and go on with the run{kept}",
            ) from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl; it is on its way to the disk when this returns."""
        durable.append_text(self.path / "metrics.jsonl", json.dumps(record, allow_nan=False) + "\n")

    def cut_metrics(self, step: int, *, evaluated: bool) -> None:
        """Take what is done again out of metrics.jsonl: the lines after `step`, its evaluation if
        that is still due, and a last line cut short."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            last = dict.fromkeys(("train", "hardware", "alert", "ranks"), step)
            last["eval"] = last["interval"] = step if evaluated else step - 1
            last["shrink"] = step or -1  # a run that begins again meets it again
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(path, "".join(line for line in lines if _is_until(line, last)))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after `step` optimizer steps lies."""
        return self.checkpoints / checkpoint.name_of(step)

    def save_checkpoint(
        self,
        step: int,
        fill: Callable[[Path], None],
        *,
        facts: dict[str, Any],
        newest: int,
        pinned: Collection[int] = (),
    ) -> None:
        """Save the checkpoint of `step` through `fill`, then remove all but the `newest` sound
        ones and those `pinned`."""
        if self._damaged is None:  # a run that goes on may have skipped some
            skipped = {name for name, _ in checkpoint.newest_valid(self.checkpoints).skipped}
            found = checkpoint.checkpoints(self.checkpoints).items()
            self._damaged = {number for number, path in found if path.name in skipped}
        checkpoint.save(self.checkpoint(step), fill, facts=facts)
        self._damaged.discard(step)
        sound = sorted(checkpoint.checkpoints(self.checkpoints).keys() - self._damaged)
        checkpoint.retain(self.checkpoints, {step, *sound[-newest:], *pinned})

    def publish(self, step: int) -> None:
        """Make the weights of `step` the run's result; `ModelError` if they were damaged since.
        The result of an earlier end of this run gives way."""
        source = checkpoint.read(self.checkpoint(step)).path
        # the parts of a combination have folders of their own
        files = sorted([*source.glob(_RESULT), *source.glob(f"part-*/{_RESULT}")])
        try:
            with durable.replaced_folder(self.adapter) as draft:
                for path in files:
                    place = draft / path.relative_to(source)
                    place.parent.mkdir(exist_ok=True)
                    durable.copy(path, place)
        except OSError as error:
            needed = sum(path.stat().st_size for path in files)
            raise durable.no_room(
                "the adapter", error, place=self.adapter, needed=needed
            ) from error

    def write_diverged(self, message: str, *, rows: Collection[str]) -> None:
        """Write diverged.json: what was wrong, and the rows of the step that was not done."""
        said = {"message": portable_text(message), "rows": [portable_text(row) for row in rows]}
        write_json(self.path / "diverged.json", said)

    def write_report(self, report: dict[str, Any]) -> None:
        """Write report.json, last."""
        write_json(self._report, report)

    def read_report(self) -> dict[str, Any] | None:
        """The report of a run that came to its end; None for one that did not."""
        return read_object(self._report) if self._report.is_file() else None


def _is_until(line: str, last: Mapping[str, int]) -> bool:
    try:
        record = json.loads(line)
        return bool(record["step"] <= last[record["kind"]])
    except ValueError:  # the process was killed while it wrote
        return False
