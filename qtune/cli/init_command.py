"""`qtune init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from qtune.cli.options import AsJson
from qtune.cli.output import news, print_error, print_json
from qtune.errors import QtuneError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.run.starting import Answers, Started

Found = TypeVar("Found")
_MODEL = "Qwen/Qwen3-8B"
_HERE = "this machine"


def init(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A Hugging Face id, or a folder.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Training rows: a file, a folder or a hub data set."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="SIZE", help="The card to plan for; else this machine."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    as_json: AsJson = False,
) -> None:
    """Write a first recipe that fits: asks on a terminal for what no option says.

    Examples:
      qtune init
      qtune init --model Qwen/Qwen3-8B --data train.jsonl --gpu 24GB
      qtune init -m ./base -d rows.csv -o experiments/first.yaml
    """
    from qtune.run import starting
    from qtune.run.importing import refuse_existing

    refuse_existing(output)
    answers = _answers(model, data, gpu, output, asking=sys.stdin.isatty() and not as_json)
    started = starting.start(answers)
    asked = data is None
    if as_json:
        print_json(started.to_dict())
    else:
        tell(started, seen=asked)


def _answers(
    model: str | None, data: str | None, gpu: str | None, output: Path, *, asking: bool
) -> Answers:
    from qtune.run.starting import Answers

    if not asking:
        for name, value in (("--model", model), ("--data", data)):
            if value is None:
                hint = "give it, or call qtune init on a terminal, where it asks"
                raise UsageError(f"{name} is missing", hint=hint)
        return Answers(model or "", data or "", gpu, output)
    asked_all = model is None and data is None and gpu is None
    news().print(f"A first recipe, {output}; nothing is written before the last answer.")
    try:
        model, data = _asked_inputs(model, data)
        if asked_all:
            gpu = _asked_gpu()
    except typer.Abort:
        raise UsageError("stopped: nothing was written") from None
    return Answers(model, data, gpu, output)


def _asked_inputs(model: str | None, data: str | None) -> tuple[str, str]:
    """Model and data, asked for again until they can be used."""
    from qtune.run.starting import known_model, look

    if model is None:
        model, shape = _asked("Model (a Hugging Face id or a folder)", _MODEL, known_model)
        _say(f"{shape.family}, {shape.total_parameters / 1e9:.3g} billion parameters")
    if data is None:
        shape = known_model(model)
        task = "classification" if shape.encoder else "causal"
        question = "Training rows (a file, a folder or a Hugging Face data set)"
        data, seen = _asked(question, None, lambda path: look(path, task=task))
        _say(seen.told())
    return model, data


def _asked_gpu() -> str | None:
    from qtune.plan import Machine, human
    from qtune.run.plan import card_of

    here = Machine.probe()
    _say(f"{_HERE}: {here.name}, {human(here.device_memory)}")
    question = "GPU to plan for (a size such as 24GB, or a name such as RTX 4090)"
    said, _ = _asked(question, _HERE, lambda text: None if text == _HERE else card_of(text))
    return None if said == _HERE else said


def _asked(question: str, default: str | None, check: Callable[[str], Found]) -> tuple[str, Found]:
    """An answer and what the check makes of it; asked again while the check refuses it."""
    while True:
        said = str(typer.prompt(question, default=default, err=True)).strip()
        try:
            return said, check(said)
        except QtuneError as error:
            print_error(error)


def _say(text: str) -> None:
    news().print(f"  {text}", style="dim", markup=False, soft_wrap=True)


def tell(started: Started, *, seen: bool) -> None:
    """What was decided and what to do next, on stderr; `seen`: the rows were told already."""
    from qtune.plan import duration, human

    console, made = news(), started.planned.plan
    if not seen:
        _say(started.seen.told())
    for change in started.changes:
        console.print(f"  changed so that it fits: {change}", markup=False, soft_wrap=True)
    steps = "" if made.steps is None else f", {made.steps.total:,} steps"
    room = f"{human(made.device_bytes)} of {human(made.budget_bytes)} on {made.machine.name}"
    speed = f"about {duration(made.seconds_per_step)} a step{steps}"
    console.print(f"[bold green]fits[/]: {room}, {speed}", soft_wrap=True)
    console.print(f"wrote {started.output}", markup=False, soft_wrap=True)
    console.print("next:", style="bold")
    console.print(f"  qtune data preview {started.output}", markup=False, soft_wrap=True)
    console.print(f"  qtune train {started.output}", markup=False, soft_wrap=True)
