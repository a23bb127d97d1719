"""`qtune import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtune.cli.options import AsJson
from qtune.cli.output import news, print_json, print_text

if TYPE_CHECKING:
    from qtune.recipe.importing import Imported


def import_(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A recipe of another tool, or a command line in quotes."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the recipe here instead of to stdout."),
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="On how many devices it ran: times the batch.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Turn another tool's training recipe into one of qtune, and say what did not map.

    Reads YAML of axolotl, TRL and the alignment handbook, LLaMA-Factory, torchtune, litgpt, mlx-lm
    and Unsloth, scripts and notebooks with their keyword arguments, and command lines of qlora.py.

    Examples:
      qtune import qlora.yml -o recipe.yaml
      qtune import finetune.sh
      qtune import "python qlora.py --model_name_or_path huggyllama/llama-7b --dataset oasst1"
      qtune import fsdp_qlora.yaml --devices 4 -o recipe.yaml
    """
    from qtune.run import importing as run

    made = run.import_recipe(file, output=output, devices=devices)
    if as_json:
        print_json(run.as_dict(made, output=output))
        return
    if output is None:
        print_text(made.text(Path()).rstrip())
    tell(made, output)


def tell(made: Imported, output: Path | None) -> None:
    """What a person should know, on stderr, and the next step."""
    console = news()
    taken = sum(len(keys) for keys in made.settings.values())
    left = [one for one in made.left if one.kind != "empty"]
    empty = len(made.left) - len(left)
    counts = f"{taken} keys of qtune set, {len(left)} of theirs not taken over, {empty} were empty"
    console.print(f"[bold]{made.tool}[/]: {counts}", soft_wrap=True)
    for remark in made.remarks:
        console.print("look at:", style="yellow", end=" ")
        console.print(remark, markup=False, soft_wrap=True)
    if output is None:
        return
    from qtune.recipe.importing.commented import by_reason

    for bullet in by_reason([one for one in left if one.kind == "not in qtune"]):
        console.print("not in qtune:", style="dim", end=" ")
        console.print(bullet, markup=False, soft_wrap=True)
    console.print(f"wrote {output}; its comments list the rest", markup=False, soft_wrap=True)
    console.print(f"next: qtune plan {output}", markup=False, soft_wrap=True)
