"""`qtune export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing

Form = Literal["peft", "merged", "gguf", "gguf-lora"]
GgufDtype = Literal["f32", "f16", "bf16", "q8_0"]


def export(  # noqa: PLR0913 - one parameter an option
    thing: Annotated[
        str, typer.Argument(help="A run, a checkpoint or an adapter; for gguf also a merged model.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The new folder; FILE.gguf for a file alone.")
    ],
    to: Annotated[
        Form, typer.Option(help="The adapter for PEFT, full weights, or llama.cpp's format.")
    ] = "peft",
    rank: Annotated[
        int | None, typer.Option(help="Of a DyLoRA: the rank to cut it to, as a plain LoRA.")
    ] = None,
    dtype: Annotated[
        GgufDtype | None,
        typer.Option(help="Numbers of a GGUF; else the model's own (a LoRA: f32)."),
    ] = None,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="llama.cpp's name of how the tokenizer cuts text."),
    ] = None,
    base_model: BaseModel = None,
    verify: Annotated[bool, typer.Option(help="Compare the logits of a GGUF.")] = True,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Take what was trained out of its run, checked: for PEFT, transformers, llama.cpp or Ollama.

    A DyLoRA may be cut to any rank it was trained for. A Delta-LoRA comes out as a plain LoRA of
    twice its rank. A GGUF is read back and its logits compared; a Modelfile for Ollama and a model
    card lie beside it. Nothing is overwritten.

    Examples:
      qtune export runs/first -o adapter
      qtune export runs/dylora -o adapter-8 --rank 8
      qtune export runs/first -o first.gguf --to gguf --dtype q8_0
      qtune export runs/first -o lora.gguf --to gguf-lora
    """
    _refuse_strangers(to, rank=rank, dtype=dtype, pre_tokenizer=pre_tokenizer)
    obey_offline(thing)
    with showing("qtune export", quiet=quiet) as display:
        report = _written(
            to,
            thing,
            output,
            rank=rank,
            base=base_model,
            gguf={"dtype": dtype, "pre": pre_tokenizer, "verify": verify},
            display=display,
        )
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def _refuse_strangers(to: str, **given: Any) -> None:
    """`UsageError` for an option that the form has not."""
    from qtune.errors import UsageError

    own = {"peft": {"rank"}, "merged": set(), "gguf": {"dtype", "pre_tokenizer"}}
    known = own.get(to, {"dtype", "rank"})
    for name, value in given.items():
        if value is not None and name not in known:
            raise UsageError(f"--to {to} has no use for it", place=f"--{name.replace('_', '-')}")


def _written(
    to: str,
    thing: str,
    output: Path,
    *,
    rank: int | None,
    base: str | None,
    gguf: dict[str, Any],
    display: Any,
) -> dict[str, Any]:
    """The report of the form that is asked for."""
    if to == "peft":
        from qtune.run.export import export as run

        return run(thing, output, rank=rank)
    if to == "merged":
        from qtune.run.merge import merge

        report = merge(thing, output, base=base, verify=gguf["verify"], display=display)
        return {**report, "format": "merged"}
    from qtune.run.gguf import Asked, to_gguf

    if to == "gguf":
        return to_gguf(thing, output, base=base, asked=Asked(**gguf), display=display)
    from qtune.run.gguf_lora import to_gguf_lora

    asked = Asked(**gguf, rank=rank)
    return to_gguf_lora(thing, output, base=base, asked=asked, display=display)


def summary(report: dict[str, Any]) -> str:
    """An export in a few lines."""
    form = report.get("format", "peft")
    if form == "merged":
        from qtune.cli.merge_command import summary as merged

        return merged(report)
    return _gguf(report) if form.startswith("gguf") else _peft(report)


def _peft(report: dict[str, Any]) -> str:
    rank = f" of rank {report['rank']}" if report["rank"] else ""
    line = (
        f"{report['output']}: {report['method']}{rank}, {report['numbers']:,} numbers in "
        f"{report['tensors']} tensors, {report['bytes'] / 1e3:,.0f} kB"
    )
    if not report["for_peft"]:
        line += f"\nonly qtune reads adapters of the type {report['peft_type']}"
    return line


def _gguf(report: dict[str, Any]) -> str:
    what = "a LoRA for " if report["format"] == "gguf-lora" else ""
    rounded = report["dtype"] == "q8_0"
    lines = [
        f"{report['output']}: {what}{report['architecture']}, {report['tensors']} tensors in "
        f"{report['dtype']}, {report['bytes'] / 1e6:,.1f} MB; all read back "
        + ("within the rounding of q8_0" if rounded else "equal")
    ]
    words = report.get("tokenizer")
    if words is not None:
        spelled = words["spelled"]
        checked = f"{spelled} texts spelled alike" if spelled else "spelling not checked"
        lines.append(f"tokenizer {words['model']}, cut as {words['pre']}: {checked}")
    found = report["verification"]
    if found is None:
        lines.append("logits not compared")
    else:
        lines.append(
            f"logits on {found['positions']:,} positions of {found['rows']}: KL {found['kl']:.2e} "
            f"nats per token (worst {found['max_kl']:.2e}), top-1 agreement "
            f"{100 * found['top1']:.2f} %"
        )
    template = report["template"]
    lines.append(f"Ollama template: {template or 'left out'}")
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])
