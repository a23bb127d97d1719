"""Adapters take turns on one base: each answers as it does alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from qtune.errors import ModelError, UsageError
from qtune.run.display import Quiet
from qtune.run.generate import Chat, Speaker, generate
from tests.run.made_run import make_run
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

BIAS = {"name": "bitfit"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapters, two of them on the same base."""
    folder = tmp_path_factory.mktemp("made")
    made = []
    for name, method, seed in (("lora", None, 2), ("bias", BIAS, 2), ("other", None, 3)):
        model = tiny_llama(seed=seed, initializer_range=0.3)
        sections = {} if method is None else {"method": method}
        run = make_run(folder / name, model=model, size=0.5, **sections)
        made.append(run.rename(run.with_name(name)))
    base = made[0].parent / "base"
    for run in made[1:2]:
        text = (run / "recipe.yaml").read_text().replace("../base", str(base))
        (run / "recipe.yaml").write_text(text)
    return made


def answers(speaker: Speaker) -> list[str]:
    report = generate(speaker, ["seven cats", "the blue fish"], max_new_tokens=8)
    return [result["text"] for result in report["results"]]


def test_each_answers_as_it_does_alone_however_often_they_change(runs: list[Path]) -> None:
    alone = [answers(Speaker(str(run), display=Quiet())) for run in runs[:2]]
    assert alone[0] != alone[1]
    speaker = Speaker(str(runs[0]), adapters=[str(runs[1])], display=Quiet())
    assert speaker.adapters.names == ["lora", "bias"]
    model = speaker.model
    for name, wanted in (("bias", alone[1]), ("lora", alone[0]), ("bias", alone[1])):
        speaker.take(name)
        assert (speaker.name, answers(speaker)) == (name, wanted)
        assert speaker.model is model


def test_a_talk_begins_anew_and_survives_a_wrong_name(runs: list[Path]) -> None:
    talk = Chat(Speaker(str(runs[0]), adapters=[str(runs[1])], display=Quiet()), max_new_tokens=4)
    first = "".join(talk.reply("seven cats"))
    with pytest.raises(UsageError, match="one of lora, bias"):
        talk.take("nobody")
    talk.take("bias")
    talk.take("lora")
    assert "".join(talk.reply("seven cats")) == first


def test_adapters_of_another_base_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="other is for another model than lora"):
        Speaker(str(runs[0]), adapters=[str(runs[2])], display=Quiet())
    # a folder that says this base, with the weights of another one's adapter
    liar = shutil.copytree(runs[0], tmp_path / "liar")
    shutil.rmtree(liar / "adapter")
    shutil.copytree(runs[2] / "adapter", liar / "adapter")
    base = runs[0].parent / "base"
    text = (liar / "recipe.yaml").read_text().replace("../base", str(base))
    (liar / "recipe.yaml").write_text(text)
    speaker = Speaker(str(runs[0]), adapters=[str(liar)], display=Quiet())
    before = answers(speaker)
    with pytest.raises(ModelError, match="another base"):
        speaker.take("liar")
    assert (speaker.name, answers(speaker)) == ("lora", before)
