"""`qtune generate` and `qtune chat`: prompted as in training, streamed to the same text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune import data
from qtune.data import Prompter
from qtune.errors import UsageError
from qtune.evaluation import answer, stop_ids
from qtune.run.display import Quiet
from qtune.run.generate import Chat, Speaker, generate
from tests.run.made_run import make_run
from tests.tiny import tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(
        tmp_path_factory.mktemp("made"), model=tiny_llama(seed=2, initializer_range=0.3)
    )


def speaker(thing: Path, **settings: Any) -> Speaker:
    return Speaker(str(thing), display=Quiet(), **settings)


def test_prompts_and_texts_are_those_of_eval(run: Path) -> None:
    from qtune.run.subject import resolve

    asked = resolve(str(run)).recipe
    talk = speaker(run)
    rows = data.read_eval(asked.data.eval, asked, talk.tokenizer)
    prompts = [talk.tokenizer.decode(row.prompt_ids) for row in rows]
    for row, prompt in zip(rows, prompts, strict=True):
        assert talk.prompter.ids(prompt) == row.prompt_ids
    assert talk.prompter.stop_ids == set(rows.stop_ids)
    report = generate(talk, prompts, max_new_tokens=10)
    answers = answer(talk.model, talk.tokenizer, rows, max_new_tokens=10, batch_size=4)
    assert [one["text"] for one in report["results"]] == [one.text for one in answers]
    assert [one["stopped"] for one in report["results"]] == [one.stopped for one in answers]
    assert report["results"][0]["prompt_tokens"] == len(rows[0].prompt_ids)


def test_layouts() -> None:
    tokenizer = tiny_tokenizer()
    chat = Prompter(tokenizer, layout="chat").ids("hello")
    wanted = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True
    )["input_ids"]
    assert chat == wanted
    assert chat.count(tokenizer.bos_token_id) == 1
    instruction = Prompter(tokenizer, layout="instruction").ids("hello")
    assert instruction == chat
    raw = Prompter(tokenizer, layout="completion").ids("hello")
    assert raw == tokenizer("hello", add_special_tokens=False).input_ids
    filled = Prompter(tokenizer, layout="completion", template="Q: {question}\nA:").ids("why?")
    assert tokenizer.decode(filled) == "Q: why?\nA:"


def test_sampling_is_seeded(run: Path) -> None:
    def text(seed: int) -> str:
        talk = speaker(run, temperature=1.0, seed=seed)
        result: str = generate(talk, ["1: red ->"], max_new_tokens=20)["results"][0]["text"]
        return result

    assert text(3) == text(3)
    assert text(3) != text(4)


def test_chat_remembers_where_it_should(run: Path) -> None:
    completing = Chat(speaker(run), max_new_tokens=4)
    assert not completing.remembers
    conversing = Chat(speaker(run.parent / "base"), max_new_tokens=6)
    assert conversing.remembers
    first = "".join(conversing.reply("one"))
    second = "".join(conversing.reply("two"))
    alone = Chat(speaker(run.parent / "base"), max_new_tokens=6)
    assert "".join(alone.reply("one")) == first
    alone.forget()
    prompt = alone._prompter.ids("two")
    with torch.no_grad():
        ids = alone._speaker.model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax()
    again = alone._speaker.reply(prompt, max_new_tokens=1)
    list(again)
    ends = stop_ids(alone._speaker.model, alone._speaker.tokenizer)
    assert again.ids == ([] if int(ids) in ends else [int(ids)])
    assert "".join(alone.reply("two")) != second or first == second


def test_a_character_of_several_tokens_comes_whole(run: Path) -> None:
    talk = speaker(run)
    wanted = "é→日"
    ids = talk.tokenizer(wanted, add_special_tokens=False).input_ids
    assert len(ids) == 8
    scripted = iter(ids)
    talk.choose = lambda logits: torch.tensor([next(scripted)]).expand(len(logits))
    reply = talk.reply([5], max_new_tokens=len(ids))
    pieces = [piece for piece in reply if piece]
    assert pieces == ["é", "→", "日"]
    assert reply.ids == ids


def test_set_needs_a_recipe(run: Path) -> None:
    with pytest.raises(UsageError, match="--set"):
        speaker(run.parent / "base", overrides=["model.revision=x"])
