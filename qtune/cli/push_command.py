"""`qtune push`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing


def push(
    thing: Annotated[
        str, typer.Argument(help="A run, an adapter, a merged model or a GGUF file or folder.")
    ],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where it goes.")],
    public: Annotated[
        bool, typer.Option("--public", help="Not private, as it is by default.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would go, with sizes.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Send an adapter, a merged model or a GGUF to the Hugging Face hub, private by default.

    Only files that belong to it go, in one commit. A folder with a training's state, a pickle or
    what looks like a secret is refused. The token is HF_TOKEN's, or that of hf auth login.

    Examples:
      qtune push runs/first me/first-adapter --dry-run
      qtune push merged me/first --public
      qtune push first.gguf me/first-gguf
    """
    obey_offline(thing)
    from qtune.run.push import push as run

    with showing("qtune push", quiet=quiet) as display:
        report = run(thing, repository, public=public, dry_run=dry_run, display=display)
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> str:
    """What went, or would go, a line a file."""
    width = max(len(entry["name"]) for entry in report["files"])
    lines = [f"{entry['name']:<{width}}  {entry['bytes']:>15,}" for entry in report["files"]]
    lines += [f"{name:<{width}}  stays" for name in report["left"]]
    how = "private" if report["private"] else "public"
    verb = "would go" if report["dry_run"] else "went"
    lines.append(
        f"{len(report['files'])} files, {report['bytes'] / 1e6:,.1f} MB ({report['kind']}) "
        f"{verb} to {report['repository']} ({how})"
    )
    return "\n".join([*lines, report["url"]] if report["url"] else lines)
