"""`qtune generate` and `qtune chat`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Quietly, Thing
from qtune.cli.output import news, print_error, print_json, print_text
from qtune.cli.screen import showing
from qtune.errors import DataError, ModelError, UsageError

if TYPE_CHECKING:
    from qtune.run.generate import Chat, Speaker

Raw = Annotated[bool, typer.Option("--raw", help="Feed the text as it stands, without a template.")]
Length = Annotated[int, typer.Option(min=1, help="The longest answer in tokens.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, max=100.0, help="0 takes the likeliest token each time.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the sampling.")]
LEAVE, FORGET, TAKE = ("/exit", "/quit"), "/new", "/adapter"


def generate(  # noqa: PLR0913 - one parameter an option
    thing: Thing,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="A prompt; repeatable.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="A file with one prompt; - is stdin.")
    ] = None,
    base: BaseModel = None,
    raw: Raw = False,
    max_new_tokens: Length = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Continue a prompt, encoded as the model's training prompts were.

    Examples:
      qtune generate runs/first --prompt "two lattes, please"
      qtune generate merged/ --prompt-file question.txt --max-new-tokens 300
    """
    prompts = [*(prompt or []), *_read(prompt_file)]
    if not prompts:
        raise UsageError("no prompt", hint="add --prompt TEXT or --prompt-file FILE")
    if not all(map(_is_text, prompts)):
        raise UsageError("the prompt is not UTF-8 text", hint="see the terminal's encoding")
    speaker = _speaker(thing, base=base, raw=raw, temperature=temperature, seed=seed, quiet=quiet)
    from qtune.run.generate import generate as run

    report = run(speaker, prompts, max_new_tokens=max_new_tokens)
    if as_json:
        print_json(report)
    else:
        for result in report["results"]:
            print_text(result["text"])


def chat(
    thing: Thing,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="Another run or adapter on the same base; repeatable."),
    ] = None,
    base: BaseModel = None,
    raw: Raw = False,
    max_new_tokens: Length = 512,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    quiet: Quietly = False,
) -> None:
    """Talk with a model; /new begins anew, /exit or Ctrl-D ends. Works with piped lines, too.

    With --adapter, /adapter NAME goes on with another adapter on the same resident base.

    Examples:
      qtune chat runs/first
      qtune chat runs/first --adapter runs/second
      qtune chat Qwen/Qwen3-8B --temperature 0.7
    """
    sampling = {"temperature": temperature, "seed": seed}
    speaker = _speaker(thing, base=base, adapters=adapter or (), raw=raw, quiet=quiet, **sampling)
    from qtune.run.generate import Chat

    talk = Chat(speaker, max_new_tokens=max_new_tokens)
    if not quiet:
        memory = "remembers its turns" if talk.remembers else "each line is a prompt of its own"
        names = speaker.adapters.names
        more = f", {TAKE} {'|'.join(names)}" if len(names) > 1 else ""
        news().print(f"{speaker.name}: {memory}; /new, /exit{more}", markup=False)
    _converse(talk)


def _converse(talk: Chat) -> None:
    """Read lines and stream answers until the end of input."""
    asking = sys.stdin.isatty()
    while True:
        if asking:
            sys.stderr.write("> ")
            sys.stderr.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise UsageError("the input is not UTF-8 text", place="stdin") from error
        text = line.strip()
        if not line or text in LEAVE:
            return
        if text == FORGET:
            talk.forget()
        elif text.split(maxsplit=1)[:1] == [TAKE]:
            _take(talk, text.removeprefix(TAKE).strip())
        elif text:
            _answer(talk, text)


def _take(talk: Chat, name: str) -> None:
    """Another adapter; one that is not there is told, and the talk goes on as it was."""
    try:
        talk.take(name)
    except (UsageError, ModelError) as error:
        print_error(error)
    else:
        news().print(f"now with {name}", markup=False)


def _answer(talk: Chat, text: str) -> None:
    """Stream one answer; a line that cannot be answered is told, and the talk goes on."""
    try:
        for piece in talk.reply(text):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except DataError as error:
        print_error(error)
        return
    sys.stdout.write("\n")
    sys.stdout.flush()


def _is_text(text: str) -> bool:
    """Whether it is whole Unicode: bytes that are not UTF-8 arrive as halves of surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _read(file: Path | None) -> list[str]:
    """The text of a prompt file, without its last line break."""
    if file is None:
        return []
    try:
        if str(file) == "-":
            return [sys.stdin.read().removesuffix("\n")]
        return [file.read_text(encoding="utf-8").removesuffix("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read the prompt: {reason}", place=str(file)) from error


def _speaker(thing: str, *, quiet: bool, **settings: Any) -> Speaker:
    obey_offline(thing)
    from qtune.run.generate import Speaker

    with showing("qtune", quiet=quiet) as display:
        return Speaker(thing, display=display, **settings)
