"""Single keys of other tools: what becomes of them, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qtune.recipe.importing import Imported
from tests.recipe.importing import given

Convert = Callable[..., Imported]


def left(made: Imported) -> dict[str, str]:
    return {one.key: one.reason for one in made.left}


def test_which_turns_axolotl_learns(converted: Convert) -> None:
    source = "    type: chat_template\n"
    made = converted(given.AXOLOTL.replace(source, f"{source}    roles_to_train: [all]\n", 1))
    assert made.recipe.loss.train_on == "all"
    assert "roles_to_train, line 8" in made.text(Path())
    assert "counts for every one" in " ".join(made.remarks)
    keys = "    roles_to_train: [assistant, tool]\n    train_on_eos: none\n"
    made = converted(given.AXOLOTL.replace(source, f"{source}{keys}", 1))
    assert made.recipe.loss.train_on == "assistant"
    assert "tool'] (line 8): loss.train_on learns" in " ".join(made.remarks)
    assert "train_on_eos: none (line 9)" in " ".join(made.remarks)
    made = converted(given.AXOLOTL.replace(source, f"{source}    roles_to_train: [gpt]\n", 1))
    assert made.recipe.loss.train_on == "assistant"
    assert "roles_to_train" not in " ".join(made.remarks)


def test_the_patience_of_axolotl_is_three_steps(converted: Convert) -> None:
    watched = f"{given.AXOLOTL}loss_watchdog_threshold: 5.0\n"
    assert converted(watched).recipe.watchdog.patience == 3
    assert converted(f"{watched}loss_watchdog_patience: 7\n").recipe.watchdog.patience == 7


def test_a_number_in_quotes_is_a_number(converted: Convert) -> None:
    quoted = given.AXOLOTL.replace("size: 3", 'size: "3"').replace("steps: 5", "steps: '5'")
    made = converted(quoted)
    assert made.recipe.train.batch_size == 3 * 5
    assert "no numbers" not in " ".join(made.remarks)
    made = converted(given.AXOLOTL.replace("size: 3", "size: few"))
    assert "no numbers" in " ".join(made.remarks)
    assert "no number there" in left(made)["gradient_accumulation_steps"]


def test_a_file_has_no_splits(converted: Convert) -> None:
    Path("held.jsonl").write_text("{}\n")
    held = "test_datasets:\n  - {path: held.jsonl, split: test, type: alpaca}\n"
    made = converted(given.AXOLOTL.replace("val_set_size: 0.02\n", held))
    assert made.recipe.data.eval[0].split == "train"
    assert "nothing would read it" in left(made)["test_datasets.split"]


def test_of_two_masks_of_llama_factory_one_is_told(converted: Convert) -> None:
    made = converted(f"{given.LLAMA_FACTORY}mask_history: true\ntrain_on_prompt: true\n")
    assert made.recipe.loss.train_on == "last_assistant"
    assert left(made)["train_on_prompt"] == "mask_history wins over it"
    made = converted(f"{given.LLAMA_FACTORY}mask_history: false\ntrain_on_prompt: true\n")
    assert made.recipe.loss.train_on == "all"


@pytest.mark.parametrize(
    ("key", "learnt"),
    [("train_on_input: True", "all"), ("masking_strategy: train_on_last", "last_assistant")],
)
def test_what_torchtune_learns(converted: Convert, key: str, learnt: str) -> None:
    made = converted(given.TORCHTUNE.replace("  packed: True", f"  {key}\n  packed: True"))
    assert made.recipe.loss.train_on == learnt
    assert f"dataset.{key.partition(':')[0]}, line 22" in made.text(Path())


@pytest.mark.parametrize(
    ("text", "right", "wrong", "says"),
    [
        (given.AXOLOTL, "lora_alpha", "lora_alfa", "method.alpha is qtune's default"),
        (given.AXOLOTL, "learning_rate", "lerning_rate", "optim.learning_rate is axolotl's"),
        (given.AXOLOTL, "gradient_accumulation_steps", "gradient_acc_steps", ""),
        (given.TRL, "gradient_accumulation_steps", "gradient_acumulation_steps", ""),
        (given.LLAMA_FACTORY, "learning_rate", "learning_rat", "is LLaMA-Factory's default"),
        (given.TORCHTUNE, "lora_rank", "lora_rnak", "method.rank is torchtune's default"),
    ],
)
def test_a_misspelt_key_is_told(
    converted: Convert, text: str, right: str, wrong: str, says: str
) -> None:
    made = converted(text.replace(right, wrong))
    [line] = [n for n, each in enumerate(text.splitlines(), 1) if each.strip().startswith(right)]
    [remark] = [each for each in made.remarks if "did you mean" in each]
    assert f"{wrong} (line {line}) is no key of {made.tool}" in remark
    assert f"{right}?" in remark
    assert says in remark
    assert not [each for each in converted(text).remarks if "did you mean" in each]


def test_a_key_that_is_not_misspelt_is_not_suspected(converted: Convert) -> None:
    real = "embedding_lr: 1e-5\nbatch_size: 64\nbnb_4bit_quant_storage: bfloat16\n"
    made = converted(f"{given.AXOLOTL}{real}mask_histroy: true\n")
    assert not [each for each in made.remarks if "did you mean" in each]
    both = converted(f"{given.LLAMA_FACTORY}train_on_prompt: true\nmask_histroy: true\n")
    [remark] = [each for each in both.remarks if "did you mean" in each]
    assert remark.endswith("did you mean mask_history?")  # loss.train_on is no default there
