"""The options of `qtune eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Against = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE|DATA]",
        help="Rows to measure on: of a recipe, or a data file; else the run's held-out rows.",
    ),
]
Rows = Annotated[int | None, typer.Option(min=1, help="Only the first rows.")]
Generate = Annotated[
    int | None, typer.Option(min=0, help="Answer so many rows by greedy decoding.")
]
Longest = Annotated[int | None, typer.Option(min=1, help="The longest answer.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="The report; else eval.json of the run.")
]
Judged = Annotated[
    bool, typer.Option("--gates", help="Judge the recipe's gates on held-out measures; exit 9.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="FILE", help="A task file; repeatable. Without rows: alone."),
]
Harness = Annotated[
    list[str] | None,
    typer.Option("--lm-eval", metavar="TASK", help="A task of lm-eval, or its YAML file."),
]
Base16 = Annotated[
    bool, typer.Option("--base16", help="The base in 16 bits, too: what quantizing cost.")
]
Merged = Annotated[
    str | None, typer.Option("--merged", metavar="FOLDER", help="A merged model, too.")
]
