"""From the rows of a task file to what a model is asked: prompts, choices, shots before them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.data import prompter
from qtune.data.faults import Faults
from qtune.data.formats.base import Fields
from qtune.data.formats.detect import detect
from qtune.data.formats.multiple_choice import choices_of, gold_of
from qtune.data.formats.prompt_completion import places, prompt_of
from qtune.data.source import label, read
from qtune.errors import DataError
from qtune.evaluation.answers import Prompt
from qtune.evaluation.choices import ChoiceQuestion, Continued

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtune.data.row import Row
    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.tasks import Task

    Encode = Callable[[str], list[int]]

MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")
_LETTERS = ("A", "B", "C", "D")
_MMLU_PROMPT = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"
_CHOICE_PROMPT = "{query}\nAnswer:"
_CHOICE = " {choice}"
_ROLE = re.compile(r"_(test|val|dev)$")


def asked_texts(task: Task, tokenizer: Any) -> list[Prompt]:
    """The prompts of a task that generates by a prompt of its own."""
    assert task.prompt is not None
    assert task.answer is not None
    encode = prompter(tokenizer, None, raw=True).ids
    head = _shots(task, lambda row, source: _worked(task, row, source))
    prompts = []
    for row in _rows(task.data, task.max_rows if task.same_prompt == "rows" else None):
        text = head(row) + _filled(row, task.data, task.prompt)
        references = _references(row, task.data, task.answer)
        prompts.append(Prompt(row.place, text, tuple(encode(text)), references))
    return grouped(prompts, task)


def grouped(prompts: Sequence[Prompt], task: Task) -> list[Prompt]:
    """The first `max_rows` questions; rows of one prompt are one of them where the task says so."""
    if task.same_prompt == "rows":
        return list(prompts[: task.max_rows])
    together: dict[tuple[int, ...], list[Prompt]] = {}
    for prompt in prompts:
        together.setdefault(prompt.ids, []).append(prompt)
    found = []
    for several in list(together.values())[: task.max_rows]:
        first = several[0]
        references = dict.fromkeys(ref for one in several for ref in one.references)
        found.append(Prompt(first.place, first.text, first.ids, tuple(references)))
    return found


def continued_texts(task: Task, tokenizer: Any) -> list[Continued]:
    """Prompt and reference of each row, for a loss over the reference's tokens."""
    assert task.prompt is not None
    assert task.answer is not None
    encode = prompter(tokenizer, None, raw=True).ids
    head = _shots(task, lambda row, source: _worked(task, row, source))
    return [
        continuation(
            encode,
            head(row) + _filled(row, task.data, task.prompt),
            _references(row, task.data, task.answer)[0],
            place=row.place,
        )
        for row in _rows(task.data, task.max_rows)
    ]


def asked_choices(task: Task, tokenizer: Any) -> list[ChoiceQuestion]:
    """The questions of a task of choices or labels, each choice encoded behind its prompt."""
    encode = prompter(tokenizer, None, raw=True).ids
    template = task.answer or _CHOICE
    source = _with_columns(task, task.data)
    head = _shots(task, lambda row, own: _worked_choice(task, row, own))
    questions = []
    for row in _rows(source, task.max_rows):
        choices, gold = _choices(task, row, source)
        text = head(row) + _filled(row, source, _choice_prompt(task))
        rows = tuple(
            continuation(encode, text, template.replace("{choice}", choice), place=row.place)
            for choice in choices
        )
        questions.append(ChoiceQuestion(row.place, text, choices, gold, rows))
    return questions


def continuation(encode: Encode, context: str, text: str, *, place: str) -> Continued:
    """A text behind its context as tokens; white space at the context's end goes to the text, where
    tokenizers want it."""
    kept = context.rstrip()
    text = context[len(kept) :] + text
    before, whole = encode(kept) if kept else [], encode(kept + text)
    shared = 0
    for ours, theirs in zip(before, whole, strict=False):
        if ours != theirs:
            break
        shared += 1
    if shared >= len(whole):
        raise DataError("an answer without a token", place=place)
    return Continued(place, tuple(whole), max(1, shared))


def _rows(source: SourceSection, limit: int | None) -> list[Row]:
    faults = Faults()
    found: list[Row] = []
    for row in read(source, faults):
        if limit is not None and len(found) == limit:
            break
        found.append(row)
    faults.raise_if_any()
    if not found:
        raise DataError("no rows to ask", place=label(source))
    return found


def _filled(row: Row, source: SourceSection, template: str) -> str:
    places(template)
    return prompt_of(Fields(row, source.columns, source, "completion"), template)


def _references(row: Row, source: SourceSection, template: str) -> tuple[str, ...]:
    """One reference, or those of a column that is a list."""
    fields = Fields(row, source.columns, source, "completion")
    names = places(template)
    if template == f"{{{names[0]}}}" and isinstance(fields.value(names[0]), list):
        several = fields.filled_list(names[0], of="texts")
        return tuple(fields.checked(names[0], text) for text in several)
    return (prompt_of(fields, template),)


def _shots(task: Task, worked: Callable[[Row, SourceSection], str]) -> Callable[[Row], str]:
    """What stands in front of a row's prompt: the intro and the worked examples."""
    if task.shots_from is None:
        return lambda _: task.intro
    source = _with_columns(task, task.shots_from)
    by_subject: dict[str, list[str]] = {}
    for row in _rows(source, None):
        subject = _subject(row) if task.layout == "mmlu" else ""
        examples = by_subject.setdefault(subject, [])
        if len(examples) < task.shots:
            examples.append(worked(row, source))

    def head(row: Row) -> str:
        subject = _subject(row) if task.layout == "mmlu" and len(by_subject) > 1 else None
        examples = next(iter(by_subject.values())) if subject is None else by_subject.get(subject)
        if examples is None or len(examples) < task.shots:
            found = len(examples or ())
            raise DataError(
                f"{found} worked examples where shots asks for {task.shots}",
                place=row.place,
                hint="shots_from: give it more rows, or of this subject",
            )
        return task.intro + "".join(example + task.between for example in examples)

    return head


def _worked(task: Task, row: Row, source: SourceSection) -> str:
    assert task.prompt is not None
    assert task.answer is not None
    return _filled(row, source, task.prompt) + _references(row, source, task.answer)[0]


def _worked_choice(task: Task, row: Row, source: SourceSection) -> str:
    choices, gold = _choices(task, row, source)
    right = (task.answer or _CHOICE).replace("{choice}", choices[gold])
    return _filled(row, source, _choice_prompt(task)) + right


def _subject(row: Row) -> str:
    """anatomy for anatomy_test.csv and anatomy_dev.csv."""
    return _ROLE.sub("", Path(row.file).stem)


def _choice_prompt(task: Task) -> str:
    default = _MMLU_PROMPT if task.layout == "mmlu" else _CHOICE_PROMPT
    return default if task.prompt is None else task.prompt


def _with_columns(task: Task, source: SourceSection) -> SourceSection:
    """The source with the columns that MMLU's files do not name."""
    if task.layout == "mmlu" and not source.column_names:
        return source.model_copy(update={"column_names": MMLU_COLUMNS})
    return source


def _choices(task: Task, row: Row, source: SourceSection) -> tuple[tuple[str, ...], int]:
    """What there is to choose from, and the number of the right one."""
    fields = Fields(row, source.columns, source, "completion")
    if task.kind == "classify":
        return task.labels, _right_label(task, fields)
    if task.layout == "mmlu":
        letter = fields.text("answer").strip()
        if letter not in _LETTERS:
            raise fields.fault("answer", f"is {letter!r}, a letter from A to D is needed")
        return _LETTERS, _LETTERS.index(letter)
    multiple = source.model_copy(update={"format": "multiple-choice"})
    columns = detect(row, multiple).columns
    fields = Fields(row, columns, source, "completion")
    texts, labels = choices_of(fields)
    return tuple(texts), gold_of(fields, texts, labels)


def _right_label(task: Task, fields: Fields) -> int:
    value = fields.value(task.label)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(task.labels):
        return value
    if isinstance(value, str) and value.strip() in task.labels:
        return task.labels.index(value.strip())
    known = ", ".join(task.labels)
    raise fields.fault(task.label, f"is {value!r}, which is none of the labels", hint=known)
