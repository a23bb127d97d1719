from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.recipe import Recipe, load, to_yaml
from qtune.recipe.shipped import recipes
from qtune.recipe.writing import flow
from tests.recipe.conftest import MINIMAL, Write


def again(recipe: Recipe, folder: str, **more: Any) -> Recipe:
    path = Path(folder) / "recipe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(recipe, relative_to=path.parent, **more))
    return load(path).recipe


@pytest.mark.parametrize("name", recipes())
def test_a_shipped_recipe_survives_writing(name: str) -> None:
    loaded = load(name)
    assert again(loaded.recipe, "runs/one") == loaded.recipe
    assert again(loaded.recipe, "runs/two", origins=loaded.origins) == loaded.recipe


@pytest.mark.parametrize(
    "text",
    [
        "quantization: {bits: 16}",
        "quantization: {bits: 8}",
        "optim: {name: sgd, betas: [0.5, 0.999]}",
        'method: {name: prompt, init_text: "a \'b\' \\" # c: \\u2028\\x7f é 😀\\n"}',
        "method: {rank_pattern: {'layers.0.q': 4, '^x$': 2}, target_modules: '.*(q|v)'}",
        "model.revision: x",
        "val_size: 0.1\neval: {generate_rows: 4, steps: 3}\ncheckpoint: {metric: token_f1}",
        "logging: {report_to: [wandb, mlflow]}",
        "memory: {micro_batch_size: 4, activations: none, budget: 20 GiB}",
        "train: {output_dir: 'no', seed: 0}",
    ],
)
def test_any_recipe_survives_writing(write: Write, text: str) -> None:
    if text.startswith("model.revision"):
        content = MINIMAL.replace("org/model}", "org/model, revision: '010'}")
    else:
        content = MINIMAL + text + "\n"
    loaded = load(write(content))
    assert again(loaded.recipe, "a/b", origins=loaded.origins) == loaded.recipe


def test_local_inputs_are_written_relative_to_the_folder(write: Write) -> None:
    write("{}", "data/rows.jsonl")
    loaded = load(write(MINIMAL.replace("org/rows", "data/rows.jsonl")))
    text = to_yaml(loaded.recipe, relative_to=Path("runs/one"), origins=loaded.origins)
    assert "path: ../../data/rows.jsonl" in text
    assert str(Path.cwd()) not in text
    beside = to_yaml(loaded.recipe, relative_to=Path("data"))
    assert "path: ./rows.jsonl\n" in beside


def test_origins_are_comments(write: Write) -> None:
    loaded = load(write(MINIMAL + "lora_r: 8\n"), ["train.seed=3"])
    lines = to_yaml(loaded.recipe, relative_to=Path(), origins=loaded.origins).splitlines()
    comments = {line.split(":")[0].strip(): line.partition(" # ")[2] for line in lines}
    assert comments["rank"] == "recipe.yaml:3, written lora_r"
    assert comments["seed"] == "--set train.seed=3"
    assert comments["alpha"] == "default"


def test_an_origin_cannot_break_out_of_its_comment(write: Write) -> None:
    loaded = load(write(MINIMAL), ["train.output_dir='a\u2028b: 1'"])
    assert again(loaded.recipe, "x", origins=loaded.origins) == loaded.recipe
    loaded = load("recipe.yaml", ['train.output_dir="a\nb: 1"'])
    assert again(loaded.recipe, "x", origins=loaded.origins) == loaded.recipe


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        1e-8,
        2e-4,
        1e22,
        0.1,
        5.0,
        "no",
        "On",
        "null",
        "~",
        "1e3",
        "0x1f",
        "010",
        "1_000",
        "1:30",
        "",
        " a",
        "a ",
        "a: b",
        "a #b",
        "- a",
        "[a",
        "a/b.c-d",
        "./a",
        "../../a/b",
        "5GB",
        "é",
        "a\tb",
        "a\u0085b",
        "😀",
        {"a b": [1, "x"]},
        ("a", 1.5),
        {},
    ],
)
def test_values_read_alike_in_yaml_1_1(value: Any) -> None:
    expected = list(value) if isinstance(value, tuple) else value
    assert yaml.safe_load(f"k: {flow(value)}") == {"k": expected}
