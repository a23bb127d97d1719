from __future__ import annotations

from pathlib import Path

import pytest

from qtune.recipe import leaves, load
from qtune.recipe.files import expand
from tests.recipe.conftest import MINIMAL, Read, Write


def test_loaded_has_path_name_and_an_origin_for_every_value(write: Write) -> None:
    path = write(MINIMAL + "lora_r: 8\noptim:\n  eps: 1e-6\n", "deep/My recipe.yaml")
    loaded = load(path, ["train.seed=3"])
    assert loaded.path == path.resolve()
    assert loaded.name == "My recipe"
    assert loaded.origins.keys() == dict(leaves(loaded.recipe)).keys()
    shown = {key: str(origin) for key, origin in loaded.origins.items() if origin.place}
    assert shown == {
        "model.name_or_path": "My recipe.yaml:1",
        "data.train.0.path": "My recipe.yaml:2",
        "method.rank": "My recipe.yaml:3, written lora_r",
        "optim.eps": "My recipe.yaml:5",
        "train.seed": "--set train.seed=3",
    }
    assert {origin.kind for origin in loaded.origins.values()} == {
        "file",
        "alias",
        "override",
        "default",
    }


@pytest.mark.parametrize(
    "name", ["llama-8b-24gb", "recipes/llama-8b-24gb.yaml", "recipes/llama-8b-24gb"]
)
def test_a_shipped_recipe_is_found_by_name(name: str) -> None:
    loaded = load(name)
    assert loaded.name == "llama-8b-24gb"
    assert loaded.origins["model.name_or_path"].place == "configs/model/llama-3-8b.yaml:3"


def test_a_file_of_ones_own_comes_before_a_shipped_one(write: Write) -> None:
    path = write(MINIMAL, "llama-8b-24gb")
    assert load("llama-8b-24gb").path == path.resolve()


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("org/model", False),
        ("gpt2", False),
        ("./gpt2", True),
        ("../gpt2", True),
        (".", True),
        ("/models/gpt2", True),
        ("~/gpt2", True),
        ("~nobody-here/gpt2", True),
        ("here", True),
        ("x" * 300, False),
    ],
)
def test_what_is_a_local_path(write: Write, text: str, local: bool) -> None:
    write("{}", "deep/here/config.json")
    path = write(
        f"model: {{name_or_path: {text}}}\ndata: {{train: [{{path: x}}]}}\n", "deep/r.yaml"
    )
    model = load(path).recipe.model.name_or_path
    expected = Path.cwd() / "deep" / expand(text)
    if local:
        assert Path(model).is_absolute()
        assert Path(model).resolve() == expected.resolve()
        assert ".." not in Path(model).parts
    else:
        assert model == text


def test_outputs_stay_relative_to_the_working_directory(read: Read) -> None:
    assert read("train: {output_dir: ./out}\n").recipe.train.output_dir == "./out"
    home = read("train: {output_dir: ~/out}\n").recipe.train.output_dir
    assert home == str(Path("~/out").expanduser())


def test_numbers_in_quotes_and_whole_numbers_are_numbers(read: Read) -> None:
    optim = read("optim: {learning_rate: '2e-5', weight_decay: 1}\n").recipe.optim
    assert (optim.learning_rate, optim.weight_decay) == (2e-5, 1.0)
