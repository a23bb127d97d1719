"""The options of `qtune merge`, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qtune.recipe.results import Combination, MergeBase, MergeDtype, Requantize

Things = Annotated[
    list[str],
    typer.Argument(metavar="THING...", help="Run folders or adapter folders of one base."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The new folder.")]
Onto = Annotated[
    MergeBase | None,
    typer.Option(
        "--base",
        help="Add to the weights trained on, or to the 16-bit originals; auto: to the better ones.",
    ),
]
Dtype = Annotated[
    MergeDtype | None, typer.Option(help="dtype of the weights; auto keeps that of the base.")
]
ShardSize = Annotated[str | None, typer.Option(metavar="SIZE", help="The largest weight file.")]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="The most memory that the merge may hold.")
]
Again = Annotated[
    Requantize | None, typer.Option(help="nf4: quantise the result again, which is lossy.")
]
KeepMask = Annotated[bool, typer.Option("--keep-mask", help="Keep the zeros of a pruned base.")]
Combine = Annotated[Combination, typer.Option(help="How several adapters become one.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="W,W", help="A weight for each adapter; equal shares of 1 without."),
]
Density = Annotated[float | None, typer.Option(help="The share of values that ties and dare keep.")]
AdapterOnly = Annotated[
    bool, typer.Option("--adapter-only", help="Write the combined adapter, not a model.")
]
Verify = Annotated[bool, typer.Option(help="Compare the merged model with the trained one.")]
