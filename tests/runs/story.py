"""The life of a run folder from its first file to its report, for tests that cut it short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtune import durable
from qtune.runs import RunFolder, checkpoint
from tests.runs.small import contents, files, filler

BEST, LAST = 10, 40
STEPS = (BEST, 20, 30, LAST)
START = {"recipe_yaml": "model: {}\n", "plan": {"fits": True}, "env": {"qtune": "0"}}


def live(path: Path, told: Callable[[int], None] = lambda _: None) -> None:
    """Begin, save every step with `BEST` pinned, end; tells each step whose save has returned."""
    folder = RunFolder(path)
    with folder.held():
        folder.create(**START)
        with folder.writing():
            for step in STEPS:
                folder.append_metrics({"kind": "train", "step": step})
                save(folder, step)
                told(step)
            folder.publish(BEST)
            folder.write_report({"steps": LAST})


def save(folder: RunFolder, step: int) -> None:
    """Save a step and keep it and the best."""
    folder.save_checkpoint(step, filler(step), facts={"step": step}, newest=1, pinned={BEST})


def go_on(path: Path) -> None:
    """What a run does that finds this folder: go on, or begin when it had not begun."""
    folder = RunFolder(path)
    with folder.held():
        if not folder.holds_run():
            folder.create(**START)
        folder.reopen(**START)
        newest = checkpoint.newest_valid(folder.checkpoints)
        step = newest.checkpoint.step if newest.checkpoint else 0
        folder.cut_metrics(step, evaluated=True)
        save(folder, step + 10)
        if BEST in checkpoint.checkpoints(folder.checkpoints):
            folder.publish(BEST)
        folder.write_report({"steps": step + 10})


def check(path: Path, saved: list[int]) -> None:
    """All that was saved is whole, and what is there under its name is what it says."""
    newest = checkpoint.newest_valid(path / "checkpoints")
    assert newest.skipped == ()
    found = newest.checkpoint
    assert (found.step if found else 0) >= max(saved, default=0)
    if BEST in saved:
        assert checkpoint.read(path / "checkpoints" / checkpoint.name_of(BEST)).step == BEST
    for step, place in checkpoint.checkpoints(path / "checkpoints").items():
        assert checkpoint.read(place).facts == {"step": step}
        assert contents(place) == files(step)
    if (path / "adapter").exists():
        assert (path / "adapter" / "adapter_model.safetensors").read_bytes() == (
            files(BEST)["adapter_model.safetensors"]
        )


def leftovers(path: Path) -> list[str]:
    """Hidden drafts and removed folders below a folder."""
    return [item.name for item in path.rglob("*") if durable.is_leftover(item)]


def operations(path: Path) -> tuple[list[str], dict[int, int]]:
    """The disk operations of a whole life, and for each step how many there were at its return."""
    seen: list[str] = []
    returned: dict[int, int] = {}
    with durable.watching(lambda operation, _: seen.append(operation)):
        live(path, lambda step: returned.setdefault(step, len(seen)))
    return seen, returned
