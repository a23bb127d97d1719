"""Choices by likelihood are those of straight-line code; batches and shots do not change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qtune.data.batch import filler_id
from qtune.errors import DataError, UsageError
from qtune.evaluation.answers import Prompt
from qtune.evaluation.choices import Chosen, Scoring, choice_tallies, choose, label_tallies
from qtune.evaluation.questions import asked_choices, asked_texts, grouped
from qtune.losses import CausalLoss
from qtune.recipe.inputs import SourceSection
from qtune.recipe.tasks import Task
from tests.tiny import tiny_llama, tiny_tokenizer

ARC = [
    {"query": "Question: what is wet?", "choices": ["water", "sand", "a stone"], "gold": 0},
    {"query": "Question: what barks?", "choices": ["cat", "the dog"], "gold": 1},
    {"query": "Question: two and two?", "choices": ["four", "five", "sixteen", "1"], "gold": 2},
    {"query": "Question: hot?", "choices": ["ice", "fire"], "gold": 1},
]
MMLU = [
    ("What is 1 + 1?", "1", "2", "3", "4", "B"),
    ("Which, if any, is red?", "sky", "grass", "blood", "snow", "C"),
]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama(seed=8, initializer_range=0.2).eval()


def arc_task(folder: Path, **keys: Any) -> Task:
    path = folder / "arc.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ARC))
    return Task(kind="choices", data=SourceSection(path=str(path)), **keys)


def mmlu_task(folder: Path, **keys: Any) -> Task:
    def write(name: str, rows: list[tuple[str, ...]]) -> str:
        lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n")
        return str(folder / name)

    dev = [("Is it?", "yes", "no", "so", "none", "A"), ("Or?", "a", "b", "c", "d", "D")]
    other = [("Wrong subject", "a", "b", "c", "d", "D")] * 2
    write("art_dev.csv", other)
    write("math_dev.csv", dev)
    return Task(
        kind="choices",
        layout="mmlu",
        data=SourceSection(path=write("math_test.csv", MMLU)),
        shots_from=SourceSection(path=str(folder / "*_dev.csv")) if keys.get("shots") else None,
        **keys,
    )


def straight(model: Any, context: str, texts: list[str]) -> list[float]:
    """The log-likelihood of each text behind the context, one sequence at a time."""
    tokenizer, found = tiny_tokenizer(), []
    for text in texts:
        before = tokenizer(context).input_ids
        ids = tokenizer(context + text).input_ids
        with torch.no_grad():
            shares = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        found.append(sum(float(shares[n - 1, ids[n]]) for n in range(len(before), len(ids))))
    return found


def ask(model: Any, task: Task, *, batch_size: int = 4, **settings: Any) -> list[Chosen]:
    tokenizer = tiny_tokenizer()
    return choose(
        model,
        asked_choices(task, tokenizer),
        Scoring(loss=CausalLoss(chunk_size=64), batch_size=batch_size, pad_id=filler_id(tokenizer)),
        **settings,
    )


def test_arc_as_straight_line_code(model: Any, tmp_path: Path) -> None:
    found = ask(model, arc_task(tmp_path))
    right = right_by_length = 0
    for row, one in zip(ARC, found, strict=True):
        choices = list(row["choices"])
        expected = straight(model, f"{row['query']}\nAnswer:", [f" {c}" for c in choices])
        assert one.scores == pytest.approx(expected, abs=1e-3)
        right += expected.index(max(expected)) == row["gold"]
        shares = [score / len(c) for score, c in zip(expected, choices, strict=True)]
        right_by_length += shares.index(max(shares)) == row["gold"]
    tallies = choice_tallies(found)
    assert tallies["accuracy"].value == right / len(ARC)
    assert tallies["accuracy_norm"].value == right_by_length / len(ARC)


def test_batches_do_not_matter(model: Any, tmp_path: Path) -> None:
    task = arc_task(tmp_path)
    alone = ask(model, task, batch_size=1)
    for size in (3, 64):
        for one, other in zip(alone, ask(model, task, batch_size=size), strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_known_questions_are_not_asked_again(model: Any, tmp_path: Path) -> None:
    task, told = arc_task(tmp_path), []
    first = ask(model, task)
    known = {number: first[number] for number in (0, 2)}
    again = ask(model, task, known=known, on_chosen=lambda some: told.extend(some))
    assert sorted(told) == [1, 3]
    assert [one.given for one in again] == [one.given for one in first]


def test_mmlu_with_shots_of_its_own_subject(model: Any, tmp_path: Path) -> None:
    task = mmlu_task(tmp_path, shots=1, intro="Questions about maths.\n\n")
    [first, second] = asked_choices(task, tiny_tokenizer())
    shot = "Is it?\nA. yes\nB. no\nC. so\nD. none\nAnswer: A\n\n"
    own = "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    assert first.prompt == f"Questions about maths.\n\n{shot}{own}"
    assert (first.gold, second.gold, first.choices) == (1, 2, ("A", "B", "C", "D"))
    assert second.prompt.endswith(
        "Which, if any, is red?\nA. sky\nB. grass\nC. blood\nD. snow\nAnswer:"
    )
    expected = straight(model, first.prompt, [f" {letter}" for letter in "ABCD"])
    assert ask(model, task)[0].scores == pytest.approx(expected, abs=1e-3)
    with pytest.raises(DataError, match="2 worked examples where shots asks for 3"):
        asked_choices(mmlu_task(tmp_path, shots=3), tiny_tokenizer())


def test_what_does_not_fit_is_cut_at_the_left(tmp_path: Path) -> None:
    small = tiny_llama(seed=8, max_position_embeddings=24).eval()
    task = arc_task(tmp_path)
    found = ask(small, task)[0]
    question = asked_choices(task, tiny_tokenizer())[0]
    ids = list(question.rows[0].ids)[-24:]
    with torch.no_grad():
        shares = small(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    size = len(" water")
    expected = sum(float(shares[n - 1, ids[n]]) for n in range(24 - size, 24))
    assert found.scores[0] == pytest.approx(expected, abs=1e-3)


def test_labels(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "good", "label": "yes"}, {"text": "bad", "label": 0}, {"text": "", "label": 1}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    keys = {"kind": "classify", "labels": ("no", "yes"), "prompt": "{text}\nGood?"}
    task = Task(data=SourceSection(path=str(path)), **keys)
    found = ask(model, task)
    assert [one.gold for one in found] == [1, 0, 1]
    hand = [Chosen("a", "", ("no", "yes"), gold, (0.0, float(gold))) for gold in (0, 1, 1)]
    wrong = [Chosen("a", "", ("no", "yes"), 0, (0.0, 1.0))]
    tallies = label_tallies(hand + wrong)
    assert tallies["accuracy"].value == 0.75
    assert tallies["macro_f1"].value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert tallies["matthews"].value == pytest.approx(0.5773502692)
    path.write_text('{"text": "x", "label": "maybe"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:1: label: is 'maybe'.*\(no, yes\)"):
        ask(model, task)


def test_prompts_and_references(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"q": "1 + 1", "a": ["2", "two"]}, {"q": "2 + 2", "a": "4"}, {"q": "1 + 1", "a": "ii"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    keys = {"kind": "generate", "data": SourceSection(path=str(path)), "prompt": "{q} ="}
    prompts = asked_texts(Task(**keys, answer="{a}"), tiny_tokenizer())
    assert [prompt.references for prompt in prompts] == [("2", "two"), ("4",), ("ii",)]
    assert tiny_tokenizer().decode(prompts[0].ids) == "1 + 1 ="
    together = asked_texts(Task(**keys, answer="{a}", same_prompt="references"), tiny_tokenizer())
    assert [prompt.references for prompt in together] == [("2", "two", "ii"), ("4",)]
    shot = Task(
        **keys, answer=" {a}", shots=1, shots_from=SourceSection(path=str(path)), max_rows=1
    )
    with pytest.raises(DataError, match="text is needed"):
        asked_texts(shot, tiny_tokenizer())
    some = [Prompt("a:1", "x", (1,), ("r",)), Prompt("a:2", "x", (1,), ("r",))]
    task = Task(**keys, answer="{a}", same_prompt="references")
    assert grouped(some, task)[0].references == ("r",)
    with pytest.raises(UsageError, match="names no"):
        asked_texts(Task(**{**keys, "prompt": "plain"}, answer="{a}"), tiny_tokenizer())
