"""Options that several verbs share, written once."""

from __future__ import annotations

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over the recipe.")
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object; of a failure: error and exit_code."),
]
Quietly = Annotated[bool, typer.Option("--quiet", "-q", help="No news on stderr.")]
Thing = Annotated[str, typer.Argument(help="A run folder, an adapter folder or a model.")]
BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", help="The base model of an adapter, when it lies elsewhere."),
]
