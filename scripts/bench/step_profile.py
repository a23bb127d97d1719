"""Where the time of a training step goes.

    python scripts/bench/step_profile.py [--size S] [--steps 3] [--kernels plain fused]

Runs qtune's own loop under torch's profiler and sorts each operator's own time into parts: by its
name, by the sizes of its inputs (the adapters' rank, the vocabulary), and by the part of the loop
it ran in. What no operator accounts for is Python. (Not called profile.py: that would stand in
front of Python's own module for every script of this folder.)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pictures
import workload

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADER, UPDATE = "bench::loader", "bench::update"
PARTS = (
    "dequantise",
    "base matmul",
    "adapter matmul",
    "attention",
    "element-wise",
    "copies and casts",
    "head + loss",
    "optimizer",
    "loader",
    "python",
)
RANKS = {workload.RANK * count for count in (1, 2, 3)}  # gate and up, or q, k and v, in one
_COPIES = ("aten::copy_", "aten::_to_copy", "aten::cat", "aten::clone", "aten::contiguous")
_MATMULS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkldnn")
_ATTENTION = ("attention", "softmax", "aten::bmm", "aten::baddbmm")


def part_of(name: str, shapes: list[Any], above: set[str], size: workload.Size) -> str:
    """The part of a step that an operator belongs to."""
    if LOADER in above or name == LOADER:
        return "loader"
    if any(one == UPDATE or "Optimizer.step" in one for one in above | {name}):
        return "optimizer"
    if "dequantize" in name:
        return "dequantise"
    sizes = {number for shape in shapes if isinstance(shape, list) for number in flat(shape)}
    if size.vocabulary in sizes and "embedding" not in name:
        return "head + loss"
    if any(word in name for word in _ATTENTION):
        return "attention"
    if name.startswith(_MATMULS):
        return "adapter matmul" if sizes & RANKS else "base matmul"
    return "copies and casts" if name in _COPIES else "element-wise"


def flat(shape: list[Any]) -> Iterator[int]:
    """The numbers of a shape, or of a list of shapes."""
    for item in shape:
        if isinstance(item, list):
            yield from flat(item)
        else:
            yield item


def jobs(recipe: Path, overrides: list[str], folder: Path) -> Any:
    """qtune's own job for a recipe, as `qtune train` makes it."""
    from qtune import recipe as recipes
    from qtune.run import resume
    from qtune.run.display import Journal, Quiet
    from qtune.run.prepare import learner, run_folder
    from qtune.run.train import make_job, settle
    from qtune.training import StopRequest

    journal = Journal(Quiet())
    loaded = recipes.load(recipe, [*overrides, f"train.output_dir={folder}"])
    settled = settle(loaded, run_folder(loaded), resume.BEGIN, journal)
    device = settled.tracker.device
    pupil = learner(settled.asked, settled.plan, settled.tokenizer, device=device, journal=journal)
    return settled, make_job(settled, pupil, journal, StopRequest())


def mark_loader(feed: Any) -> None:
    """Mark the making of batches, in whichever thread it happens."""
    from torch.profiler import record_function

    made = feed.steps

    def steps(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        batches = made(*arguments, **keywords)
        while True:
            with record_function(LOADER):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    object.__setattr__(feed, "steps", steps)


def mark_updates(optimizer: Any) -> None:
    """Mark the updates of a bitsandbytes optimizer; torch marks those of its own."""
    from torch.profiler import record_function

    update = getattr(optimizer, "update_step", None)
    if update is None:
        return

    def marked(*arguments: Any) -> None:
        with record_function(UPDATE):
            update(*arguments)

    optimizer.update_step = marked


def profiled(job: Any, *, warm: int) -> tuple[Any, list[Any], float]:
    """(the profiler, the step events, seconds) of a job's steps behind the first `warm`."""
    from torch.profiler import ProfilerActivity, profile

    from qtune import training

    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # its own lines would stand in ours
    profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True)
    events: list[Any] = []
    start = 0.0
    for event in training.fit(job):
        if not isinstance(event, training.StepEvent):
            continue
        if event.step == warm:
            profiler.start()
            start = time.perf_counter()
        elif event.step > warm:
            events.append(event)
        if event.step == job.total_steps:
            seconds = time.perf_counter() - start
            profiler.stop()
    return profiler, events, seconds


def sorted_time(profiler: Any, size: workload.Size) -> tuple[Counter[str], Any]:
    """Microseconds of own time by part, and by (part, operator, shapes), of the loop's thread.

    What the loader does meanwhile, in a thread of its own, costs the loop nothing.
    """
    parts: Counter[str] = Counter()
    operators: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    events = profiler.events()
    (loop, _), *_ = Counter(event.thread for event in events).most_common(1)
    for event in events:
        if event.thread != loop:
            continue
        above = set()
        parent = event.cpu_parent
        while parent is not None:
            above.add(parent.name)
            parent = parent.cpu_parent
        shapes = event.input_shapes or []
        part = part_of(event.name, shapes, above, size)
        own = event.self_cpu_time_total
        parts[part] += own
        told = " ".join("x".join(map(str, shape)) for shape in shapes if shape)
        entry = operators[part, event.name, told]
        entry[0] += own
        entry[1] += 1
    return parts, operators


def measure(arguments: argparse.Namespace, kernels: str) -> dict[str, Any]:
    """The parts of the steps behind the warm-up, in seconds a step."""
    size = workload.SIZES[arguments.size]
    folder = Path(arguments.folder or Path(tempfile.gettempdir()) / "qtune-bench")
    folder = folder / arguments.size
    total = arguments.warm + arguments.steps
    overrides = [*arguments.set, f"memory.kernels={kernels}"]
    workload.write(folder, size, rows=64 * size.batch)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "recipe.yaml"
        path.write_text(workload.recipe(folder, size, steps=total))
        settled, job = jobs(path, overrides, Path(temporary) / "run")
        mark_loader(job.feed)
        mark_updates(job.optimizer)
        profiler, events, seconds = profiled(job, warm=arguments.warm)
    parts, operators = sorted_time(profiler, size)
    steps = len(events)
    micro = seconds * 1e6
    parts["python"] += max(0.0, micro - sum(parts.values()))
    tokens = sum(event.tokens for event in events)
    if arguments.trace is not None:
        profiler.export_chrome_trace(str(arguments.trace))
    return {
        "size": arguments.size,
        "kernels": kernels,
        "set": arguments.set,
        "plan": {"activations": settled.plan.activations},
        "steps": steps,
        "tokens": tokens,
        "computed": sum(event.computed for event in events),
        "supervised": sum(event.supervised for event in events),
        "tokens_per_second_profiled": round(tokens / seconds, 1),
        "seconds_a_step": round(seconds / steps, 4),
        "parts": {part: round(parts[part] / micro, 4) for part in PARTS},
        "operators": costliest(operators, micro, steps)[: arguments.operators],
    }


def costliest(operators: Any, whole: float, steps: int) -> list[dict[str, Any]]:
    """The operators by their own time, each with the shapes that took most of it."""
    named: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)
    for (part, name, shapes), (own, calls) in operators.items():
        named[part, name].append((own, calls, shapes))
    found = [
        {
            "part": part,
            "name": name,
            "share": round(sum(own for own, _, _ in those) / whole, 4),
            "calls_a_step": round(sum(calls for _, calls, _ in those) / steps, 1),
            "most_on": max(those)[2][:100],
        }
        for (part, name), those in named.items()
    ]
    return sorted(found, key=lambda one: -float(str(one["share"])))


def show(result: dict[str, Any]) -> None:
    """The parts and the costliest operators as tables."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130)
    table = Table(
        "part",
        "share",
        "seconds a step",
        box=box.SIMPLE_HEAD,
        title=f"size {result['size']}, {result['kernels']} blocks",
    )
    for part, share in result["parts"].items():
        table.add_row(part, f"{share:.1%}", f"{share * result['seconds_a_step']:.3f}")
    console.print(table)
    costs = Table("part", "operator", "share", "calls a step", "most on", box=box.SIMPLE_HEAD)
    for one in result["operators"]:
        share, calls = f"{one['share']:.1%}", f"{one['calls_a_step']:.0f}"
        costs.add_row(one["part"], one["name"], share, calls, one["most_on"])
    console.print(costs)
    speed = result["tokens_per_second_profiled"]
    console.print(f"{speed} tokens/s under the profiler; activations {result['plan']}")


def main() -> None:
    """Profile, show and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=workload.SIZES, default="S")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm", type=int, default=2, help="steps before the profiler starts")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
    parser.add_argument("--operators", type=int, default=25, help="how many operators to show")
    parser.add_argument("--folder", help="where the made models are kept")
    parser.add_argument("--trace", type=Path, help="write a Chrome trace, too")
    parser.add_argument("--kernels", nargs="+", default=["plain", "fused"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--picture", type=Path, help="an .svg or .png")
    arguments = parser.parse_args()
    results = {}
    for kernels in arguments.kernels:
        results[kernels] = measure(arguments, kernels)
        show(results[kernels])
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.picture is not None:
        rows = {
            f"{kernels} blocks": {
                part: share * one["seconds_a_step"] for part, share in one["parts"].items()
            }
            for kernels, one in results.items()
        }
        pictures.stacked(arguments.picture, f"seconds of a step, size {arguments.size}", rows)


if __name__ == "__main__":
    sys.exit(main())
