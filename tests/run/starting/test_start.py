"""A first recipe fits, says why, and is read by the other commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qtune.errors import DataError, ModelError, OutputError, ResourceError, UsageError
from qtune.recipe import load
from qtune.run.plan import plan
from qtune.run.starting import Answers, Started, known_model, look, start
from tests.plan.given import LLAMA_65B

SMALL = {**LLAMA_65B, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4}
SMALL |= {"num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4000}
BERT = {
    **{"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "vocab_size": 500},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128},
    "type_vocab_size": 2,
}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, config in (("small", SMALL), ("large", LLAMA_65B), ("bert", BERT)):
        Path(name).mkdir()
        Path(name, "config.json").write_text(json.dumps(config))


def rows(name: str, row: Any, count: int = 60) -> str:
    Path(name).write_text((json.dumps(row) + "\n") * count)
    return name


def started(data: str, model: str = "./small", gpu: str | None = "24GB") -> Started:
    return start(Answers(model, data, gpu, Path("recipe.yaml")))


def test_it_fits_and_loads() -> None:
    data = rows("asked.jsonl", {"question": "q " * 300, "answer": "a " * 60})
    made = started(data)
    recipe = load("recipe.yaml").recipe
    assert made.planned.plan.fits
    assert plan(Path("recipe.yaml"), gpu="24GB").plan.fits
    [source] = recipe.data.train
    assert source.format == "prompt-completion"
    assert source.columns == {"prompt": "question", "completion": "answer"}
    assert source.path == str(Path(data).absolute())
    # about 206 tokens by its letters, with room
    assert recipe.data.max_length == 512
    assert recipe.data.val_size == 0.1
    assert (recipe.train.num_train_epochs, recipe.train.batch_size) == (3, 16)
    assert (recipe.method.rank, recipe.optim.learning_rate) == (64, 2e-4)
    assert "path: ./asked.jsonl" in made.text
    assert made.text == Path("recipe.yaml").read_text()


def test_many_rows_are_seen_once() -> None:
    started(rows("many.jsonl", {"prompt": "a", "completion": "b"}, count=5000))
    recipe = load("recipe.yaml").recipe
    assert (recipe.train.num_train_epochs, recipe.data.val_size) == (1, 200)
    assert recipe.data.max_length == 256


def test_what_is_too_large_is_changed_and_told() -> None:
    data = rows("long.jsonl", {"prompt": "p" * 9000, "completion": "b"})
    made = started(data, "./large", "24GB")
    assert load("recipe.yaml").recipe.optim.learning_rate == 1e-4
    assert made.planned.plan.fits
    tight = start(Answers("./large", data, "6GB", Path("tight.yaml")))
    assert tight.planned.plan.fits
    assert tight.changes
    recipe = load("tight.yaml").recipe
    for change in tight.changes:
        path, _, value = change.partition("=")
        section, _, key = path.partition(".")
        assert str(getattr(getattr(recipe, section), key)) == value
    assert "# so that it fits" in tight.text


def test_what_cannot_fit_writes_nothing() -> None:
    data = rows("rows.jsonl", {"prompt": "a", "completion": "b"})
    with pytest.raises(ResourceError, match="needs"):
        start(Answers("./large", data, "1GB", Path("recipe.yaml")))
    assert not Path("recipe.yaml").exists()


def test_nothing_is_overwritten() -> None:
    Path("recipe.yaml").write_text("mine")
    with pytest.raises(OutputError):
        started("nowhere.jsonl")
    assert Path("recipe.yaml").read_text() == "mine"


def test_an_encoder_learns_labels() -> None:
    text = "text,category\n" + "some words,good\nother words,bad\n" * 30
    Path("kinds.csv").write_text(text)
    made = started("kinds.csv", "./bert")
    recipe = load("recipe.yaml").recipe
    assert recipe.model.task == "classification"
    assert recipe.checkpoint.metric == "accuracy"
    assert recipe.data.max_length <= 128
    assert made.seen.columns == {"label": "category"}
    assert known_model("./bert").encoder


@pytest.mark.parametrize(
    ("tokens", "template"), [("<|im_end|>", "chatml"), ("<|eot_id|>", "llama-3"), ("", "vicuna")]
)
def test_chats_get_a_template_that_the_tokenizer_can_end(tokens: str, template: str) -> None:
    Path("small/tokenizer.json").write_text(json.dumps({"added": [tokens]}))
    Path("small/tokenizer_config.json").write_text("{}")
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    started(rows("talk.jsonl", talk))
    assert load("recipe.yaml").recipe.model.chat_template == template


def test_the_tokenizers_own_template_is_kept() -> None:
    Path("small/tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    started(rows("talk.jsonl", talk))
    assert load("recipe.yaml").recipe.model.chat_template is None


def test_a_hub_data_set_is_named_and_not_fetched() -> None:
    made = started("someone/rows")
    assert made.seen.hub
    assert load("recipe.yaml").recipe.data.train[0].path == "someone/rows"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "judged answers"),
        ({"x": 1}, "expected one of"),
    ],
)
def test_rows_that_teach_nothing_are_refused(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        look(rows("rows.jsonl", row))


def test_what_is_not_there() -> None:
    with pytest.raises(DataError, match="no such file"):
        look("./nowhere.jsonl")
    with pytest.raises(UsageError, match="no data"):
        look(" ")
    Path("empty.jsonl").write_text("")
    with pytest.raises(DataError):
        look("empty.jsonl")
    with pytest.raises(ModelError):
        known_model("./nowhere")
    with pytest.raises(UsageError):
        started(rows("a.jsonl", {"text": "a"}), gpu="a big one")
