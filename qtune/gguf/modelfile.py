"""Ollama's Modelfile: which file, how a conversation is written down, where an answer stops.

Ollama's templates are Go's; one is derived for each built-in chat template of qtune, and a model's
own template is known by what it writes, not by its text. BOS is left out: Ollama puts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qtune import templates
from qtune.errors import DataError
from qtune.templates.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Turns = list[dict[str, str]]

_TURNS = "{{ range .Messages }}"
_SYSTEM = "{{ if and (eq $n 1) $.System }}{{ $.System }}\n\n{{ end }}"
_NUMBERED = "{{ range $n, $turn := .Messages }}"
_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_CHATML = (
    f"{_TURNS}<|im_start|>{{{{ .Role }}}}\n{{{{ .Content }}}}<|im_end|>\n{{{{ end }}}}"
    "<|im_start|>assistant\n"
)
# EOS stands for the tokenizer's own end of sequence.
IN_GO: dict[str, str] = {
    "alpaca": (
        f"{{{{ if .System }}}}{{{{ .System }}}}{{{{ else }}}}{_ALPACA}{{{{ end }}}}\n\n{_TURNS}"
        '{{ if eq .Role "user" }}### Instruction:\n{{ .Content }}\n\n'
        '{{ else if eq .Role "assistant" }}### Response:\n{{ .Content }}EOS\n\n'
        "{{ end }}{{ end }}### Response:\n"
    ),
    "chatml": _CHATML,
    "gemma": (
        f'{_NUMBERED}{{{{ if eq .Role "user" }}}}<start_of_turn>user\n{_SYSTEM}'
        '{{ .Content }}<end_of_turn>\n{{ else if eq .Role "assistant" }}<start_of_turn>model\n'
        "{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}<start_of_turn>model\n"
    ),
    "llama-3": (
        f"{_TURNS}<|start_header_id|>{{{{ .Role }}}}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": (
        f'{_NUMBERED}{{{{ if eq .Role "user" }}}}[INST] {_SYSTEM}{{{{ .Content }}}} [/INST]'
        '{{ else if eq .Role "assistant" }} {{ .Content }}EOS{{ end }}{{ end }}'
    ),
    "phi": (
        f"{_TURNS}<|{{{{ .Role }}}}|>\n{{{{ .Content }}}}<|end|>\n{{{{ end }}}}<|assistant|>\n"
    ),
    "qwen": _CHATML,
    "vicuna": (
        f"{{{{ if .System }}}}{{{{ .System }}}}{{{{ else }}}}{_VICUNA}{{{{ end }}}} {_TURNS}"
        '{{ if eq .Role "user" }}USER: {{ .Content }} '
        '{{ else if eq .Role "assistant" }}ASSISTANT: {{ .Content }}EOS{{ end }}{{ end }}ASSISTANT:'
    ),
    "zephyr": f"{_TURNS}<|{{{{ .Role }}}}|>\n{{{{ .Content }}}}EOS\n{{{{ end }}}}<|assistant|>\n",
}
_ASKED = {"role": "user", "content": "What is 2 + 2?"}
_ANSWERED = {"role": "assistant", "content": "It is 4."}
_TOLD = {"role": "system", "content": "Be brief."}
PROBES: tuple[Turns, ...] = (
    [_ASKED],
    [_ASKED, _ANSWERED, _ASKED],
    [_TOLD, _ASKED],
    [_TOLD, _ASKED, _ANSWERED, _ASKED],
)


class Template(NamedTuple):
    """A built-in chat template that writes what the model's own does, or why there is none."""

    name: str | None
    reason: str = ""


def recognised(text: str | None, render: Callable[[str, Turns], str]) -> Template:
    """Which built-in a chat template is; `render(template, turns)` writes turns to be answered."""
    if text is None:
        return Template(None, "the tokenizer has no chat template")
    wanted = [_written(text, turns, render) for turns in PROBES]
    if any(answer is None for answer in wanted[:2]):
        return Template(None, "the chat template refuses a plain conversation")
    for name in IN_GO:
        own = [_written(templates.text_of(name), turns, render) for turns in PROBES]
        if all(theirs in (None, ours) for theirs, ours in zip(wanted, own, strict=True)):
            return Template(name)
    return Template(None, "the chat template writes what none of the built-in ones does")


def modelfile(
    *,
    base: str,
    adapter: str | None,
    template: Template,
    eos: str,
    stops: Sequence[str],
    note: str = "",
) -> str:
    """The text of a Modelfile; `base` and `adapter` are files beside it."""
    lines = [f"# {note}"] if note else []
    lines.append(f"FROM ./{base}")
    if adapter is not None:
        lines.append(f"ADAPTER ./{adapter}")
    if template.name is None:
        lines.append(f"# no TEMPLATE: {template.reason}; Ollama takes the GGUF's own where it can")
    else:
        lines.append(f'TEMPLATE """{in_go(template.name, eos)}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if '"' not in stop]
    return "\n".join(lines) + "\n"


def in_go(name: str, eos: str) -> str:
    """The template of a built-in in Go's language."""
    return IN_GO[name].replace("EOS", eos)


def _written(text: str, turns: Turns, render: Callable[[str, Turns], str]) -> str | None:
    """What a template writes; None when it refuses."""
    try:
        return Limits("the chat template").call(lambda: render(text, turns))
    except DataError:
        return None
