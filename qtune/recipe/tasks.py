"""Task files: what a model is asked, and how its answers are measured. Strict as recipes are.

The text under a key is its documentation: faults quote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError

from qtune.errors import Fault, UsageError
from qtune.recipe.files import expand, read_text
from qtune.recipe.inputs import SourceSection
from qtune.recipe.node import Node, Source
from qtune.recipe.paths import source_paths
from qtune.recipe.phrasing import what_is_wrong
from qtune.recipe.results import CacheKind  # noqa: TC001 - pydantic reads it
from qtune.recipe.section import Names, Regex, Section
from qtune.recipe.suggest import close
from qtune.recipe.syntax import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydantic_core import ErrorDetails

Kind = Literal["loss", "generate", "choices", "classify"]
TextMeasure = Literal[
    "exact_match", "token_f1", "bleu", "chrf", "rouge_l", "numeric", "pattern", "stopped"
]
_SOURCES = ("data", "shots_from")


class Task(Section):
    """What a model is asked, and how its answers are measured."""

    kind: Kind
    """loss: of each row's answer; generate: a text to each prompt; choices: the likeliest of a
    row's choices; classify: the likeliest of the labels, which are the same for every row."""
    data: SourceSection
    """Where the rows are: path, format, columns, ... as a source of a recipe."""
    layout: Literal["choices", "mmlu"] = "choices"
    """choices: fields query, choices and gold (ARC's and others, by data.columns); mmlu: csv rows
    of question, four choices and the letter of the right one, without a header."""
    prompt: str | None = None
    """Text of the prompt with {column} places, behind no template; without it rows are asked as
    training encodes them, and choices as {query}, line break, Answer:."""
    answer: str | None = None
    """Text of the reference with {column} places; a column that is a list holds several that are
    equally good. Of choices and labels: how one is written, by {choice}."""
    labels: Names = ()
    """The labels of classify, as they are written behind the prompt."""
    label: str = "label"
    """The column of the right label of classify: one of labels, or its number from 0."""
    intro: str = ""
    """Text in front of everything."""
    shots: int = Field(default=0, ge=0)
    """Worked examples in front of each prompt."""
    shots_from: SourceSection | None = None
    """Where they are; the first ones are taken, of MMLU those of the same subject's file."""
    between: str = "\n\n"
    """Text between the worked examples."""
    same_prompt: Literal["rows", "references"] = "rows"
    """references: rows of one prompt are one question with several references."""
    measures: Annotated[tuple[TextMeasure, ...], Field(strict=False, min_length=1)] = (
        "exact_match",
        "token_f1",
        "stopped",
    )
    """Measures of generated texts."""
    pattern: Regex | None = None
    """What the measure pattern finds in answer and reference: its last group."""
    stop: Names = ()
    """Texts that end an answer, beside the end token."""
    max_new_tokens: int = Field(default=64, ge=1)
    """The longest generated text."""
    max_rows: int | None = Field(default=None, ge=1)
    """Only the first questions."""
    cache: CacheKind = "dynamic"
    """Keys and values while texts are generated: growing, static, or quantized."""


_ONLY_OF: dict[str, tuple[Kind, ...]] = {
    "layout": ("choices",),
    "labels": ("classify",),
    "label": ("classify",),
    "same_prompt": ("generate",),
    "measures": ("generate",),
    "pattern": ("generate",),
    "stop": ("generate",),
    "max_new_tokens": ("generate",),
    "cache": ("generate",),
}
_TEMPLATED = ("answer", "intro", "shots", "shots_from", "between")


def load_task(path: str | Path) -> Task:
    """Read a task file; all its faults in one `UsageError`. Its paths are relative to it."""
    name = str(path)
    file = expand(name)
    root = parse(
        read_text(file, name=name),
        Source(name=name, label=file.name, folder=file.absolute().parent),
    )
    if not isinstance(root.value, dict):
        raise UsageError("a task is a table of keys", place=name, hint="kind: ..., data: ...")
    keys = {key: source_paths(n) if key in _SOURCES else n for key, n in root.value.items()}
    node = Node(keys, root.source, root.line)
    try:
        task = Task.model_validate(node.plain())
    except ValidationError as error:
        raise _all(_faults(error.errors(include_url=False), node)) from None
    if faults := [*_idle(task, node), *_missing(task, node)]:
        raise _all(faults)
    return task


def _all(faults: Iterable[Fault]) -> UsageError:
    """All faults in the order of their lines."""
    return UsageError.of(sorted(faults, key=lambda fault: int(fault.place.rpartition(":")[2])))


def _faults(errors: list[ErrorDetails], root: Node) -> Iterator[Fault]:
    """One fault a key; a list is told of by its items."""
    for error in sorted(errors, key=lambda one: len(one["loc"]), reverse=True):
        path = error["loc"]
        if error["type"] == "too_short" and error["input"]:
            continue  # pydantic counts only the good items of a list
        node = root
        for step in path:
            node = node.child(step) or node
        in_source = path[0] in _SOURCES and len(path) > 1
        fields = SourceSection.model_fields if in_source else Task.model_fields
        name = str(path[1] if in_source else path[0])
        key = f"{path[0]}.{name}" if in_source else name
        field = fields.get(name)
        if error["type"] == "extra_forbidden":
            hint = close(name, fields) or f"keys: {', '.join(fields)}"
            yield Fault(message=f"{key}: unknown key", place=node.place, hint=hint)
        elif error["type"] == "missing":
            hint = _meaning(field)
            yield Fault(message=f"{key}: missing", place=root.place, hint=hint)
        else:
            annotation = field.annotation if field else None
            if isinstance(path[-1], int):
                annotation = get_args(annotation)[0]
            what, hint = what_is_wrong([error], annotation, node.plain())
            yield Fault(message=f"{key}: {what}", place=node.place, hint=hint)


def _meaning(field: Any) -> str:
    return " ".join((field.description or "").split()).rstrip(".") if field else ""


def _idle(task: Task, root: Node) -> Iterator[Fault]:
    """Keys that nothing would read."""
    for key, kinds in _ONLY_OF.items():
        node = root.child(key)
        if node is not None and task.kind not in kinds:
            yield _fault(node, f"{key}: nothing would read it: kind is {task.kind}", "remove it")
    if task.prompt is None and task.kind in ("loss", "generate"):
        for key in _TEMPLATED:
            if (node := root.child(key)) is not None:
                yield _fault(node, f"{key}: nothing would read it without prompt", "write prompt:")
    if (node := root.child("shots_from")) is not None and task.shots == 0:
        yield _fault(node, "shots_from: nothing would read it: shots is 0", "write shots:")
    if (node := root.child("pattern")) is not None and "pattern" not in task.measures:
        yield _fault(node, "pattern: nothing would read it", "add pattern to measures")


def _missing(task: Task, root: Node) -> Iterator[Fault]:
    """Keys that others need."""
    if "pattern" in task.measures and task.pattern is None:
        yield _fault(root.child("measures"), "measures: pattern needs the key pattern", "add it")
    if task.prompt is not None and task.answer is None and task.kind in ("loss", "generate"):
        yield _fault(root.child("prompt"), "prompt: needs answer, the reference", "add answer:")
    if task.shots and task.shots_from is None:
        yield _fault(root.child("shots"), "shots: needs shots_from, where they are", "add it")
    if task.kind == "classify":
        if len(task.labels) < 2:
            hint = "labels: [first, second]"
            yield _fault(root.child("kind"), "kind: classify needs two labels or more", hint)
        if task.prompt is None:
            yield _fault(root.child("kind"), "kind: classify needs prompt", 'prompt: "{text}"')
    if "{choice}" not in (task.answer or "{choice}") and task.kind in ("choices", "classify"):
        yield _fault(root.child("answer"), "answer: names no {choice}", 'answer: " {choice}"')


def _fault(node: Node | None, message: str, hint: str) -> Fault:
    assert node is not None
    return Fault(message=message, place=node.place, hint=hint)
