"""Scripts and notebooks: what their calls are given, what follows from it, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.errors import UsageError
from qtune.recipe import Recipe, load
from qtune.recipe.importing import Imported, convert

UNSLOTH = """\
lora_rank: int = 32
BS, unknown = 2, input()
BS = 2
dtype = None
model, tokenizer = FastLanguageModel.from_pretrained(model_name="unsloth/x", dtype=dtype)
model = FastLanguageModel.get_peft_model(model, r=lora_rank, {adapter})
dataset = load_dataset("someone/chats", split="train")
trainer = SFTTrainer(model=model, train_dataset=dataset, args=SFTConfig({trainer}))
"""
TRL = """\
train = load_dataset("json", data_files="tr.jsonl", split="train[:90%]")
{data}
trainer = SFTTrainer("org/small", {trainer})
"""


def converted(text: str) -> Imported:
    Path("theirs.py").write_text(text)
    made = convert("theirs.py")
    Path("recipe.yaml").write_text(made.text(Path()))
    assert load("recipe.yaml").recipe == made.recipe
    Path("recipe.yaml").unlink()
    return made


def unsloth(adapter: str = "", trainer: str = "") -> Imported:
    return converted(UNSLOTH.format(adapter=adapter, trainer=trainer))


def trl(data: str = "", trainer: str = "peft_config=LoraConfig()") -> Imported:
    return converted(TRL.format(data=data, trainer=trainer))


def rows(recipe: Recipe) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    train, held = (
        [(each.path, each.split) for each in part] for part in (recipe.data.train, recipe.data.eval)
    )
    return train, held


def test_arithmetic_over_constants_is_calculated() -> None:
    made = unsloth(
        "lora_alpha=lora_rank*2, lora_dropout=-(1 - 3) / 2**4",
        'per_device_train_batch_size=BS, gradient_accumulation_steps=int("16") // BS % 9, '
        'warmup_ratio=1/10, learning_rate=float("2e-4"), max_steps=10 + BS',
    )
    assert (made.recipe.method.alpha, made.recipe.method.dropout) == (64, 0.125)
    assert (made.recipe.train.batch_size, made.recipe.train.max_steps) == (16, 12)
    assert (made.recipe.optim.warmup_ratio, made.recipe.optim.learning_rate) == (0.1, 2e-4)
    assert not any("computed" in each for each in (*made.remarks, *(one.key for one in made.left)))


@pytest.mark.parametrize(
    ("adapter", "trainer", "ours"),
    [
        ("lora_alpha=len(x)", "", "method.alpha"),
        ("lora_alpha=2 ** 10 ** 9", "", "method.alpha"),
        ("lora_alpha=1 / 0", "", "method.alpha"),
        ("target_modules=names()", "", "method.target_modules"),
        ("", "gradient_accumulation_steps=steps()", "train.batch_size"),
        ("", "warmup_ratio=share()", "optim.warmup_ratio"),
        ("", "max_steps=steps()", "train.max_steps"),
        ("", "learning_rate=unknown", "optim.learning_rate"),
    ],
)
def test_what_only_running_would_tell_is_no_default_of_the_script(
    adapter: str, trainer: str, ours: str
) -> None:
    made = unsloth(adapter, trainer)
    key, _, expression = (adapter or trainer).partition("=")
    [remark] = [each for each in made.remarks if "computed" in each]
    line = 6 if adapter else 8
    assert f"{key} is computed (`{expression}`, line {line}): write {ours}" in " ".join(
        remark.split()
    )
    assert ours not in made.values()
    assert "optim.warmup_steps" not in made.values() or "warmup" not in key
    assert "train.num_train_epochs" not in made.values() or key != "max_steps"


def test_what_is_left_beside_a_computed_argument_is_told_truly() -> None:
    trainer = "gradient_accumulation_steps=steps(), per_device_train_batch_size=4, save_steps=n()"
    left = {one.key: one.reason for one in unsloth(trainer=trainer).left}
    assert left["per_device_train_batch_size"] == "of no use without gradient_accumulation_steps"
    assert "saved at each evaluation" in left["computed.save_steps"]


def test_the_defaults_are_those_of_the_calls() -> None:
    peft = trl(trainer="args=SFTConfig(), peft_config=LoraConfig(r=32)")
    assert (peft.recipe.method.rank, peft.recipe.method.alpha) == (32, 8)
    assert peft.recipe.method.target_modules == ("q_proj", "v_proj")
    assert any("PEFT then adapts q_proj and v_proj" in each for each in peft.remarks)
    assert peft.recipe.optim.learning_rate == 2e-5
    named = trl(trainer="args=TrainingArguments(), peft_config=LoraConfig(target_modules=['up'])")
    assert (named.recipe.method.rank, named.recipe.method.target_modules) == (8, ("up",))
    assert named.recipe.optim.learning_rate == 5e-5
    assert not any("q_proj" in each for each in named.remarks)
    own = unsloth('bias="none"')
    assert (own.recipe.method.alpha, own.recipe.optim.learning_rate) == (16, 5e-5)
    assert own.recipe.method.target_modules == "all-linear"
    assert (own.recipe.quantization.bits, peft.recipe.quantization.bits) == (4, 16)
    assert {one.kind for one in own.left if one.key == "bias"} == {"not needed"}
    assert any("no LoraConfig" in each for each in trl(trainer="args=SFTConfig()").remarks)


LORA = "peft_config=LoraConfig()"


@pytest.mark.parametrize(
    ("data", "trainer", "learnt", "held"),
    [
        ("", "", [("tr.jsonl", "train[:90%]")], []),
        (
            'held = load_dataset("json", data_files=["a.jsonl", "b.jsonl"], split="train")',
            "train_dataset=train, eval_dataset=held.map(write)",
            [("tr.jsonl", "train[:90%]")],
            [("a.jsonl", "train"), ("b.jsonl", "train")],
        ),
        (
            'both = load_dataset("json", data_files={"train": "a.json", "test": "b.json"})',
            'train_dataset=both["train"]',
            [("a.json", "train")],
            [],
        ),
        (
            'both = load_dataset("json", data_files={"train": "a.json", "test": "b.json"})\n'
            'held = both["test"].map(write)',
            'train_dataset=both["train"], eval_dataset=held',
            [("a.json", "train")],
            [("b.json", "train")],
        ),
        (
            'both = load_dataset("json", data_files={"train": ["a", "c"], "validation": "b"})',
            "train_dataset=both",
            [("a", "train"), ("c", "train")],
            [("b", "train")],
        ),
        (
            'both = load_dataset("some/chats", "small")',
            'train_dataset=both["learn"], eval_dataset=both["test"]',
            [("some/chats", "learn")],
            [("some/chats", "test")],
        ),
        ("", 'eval_dataset=load_dataset("a/b", split="dev")', None, [("a/b", "dev")]),
    ],
)
def test_rows_are_followed_to_the_trainer(
    data: str,
    trainer: str,
    learnt: list[tuple[str, str]] | None,
    held: list[tuple[str, str]],
) -> None:
    made = trl(data, f"{trainer}{', ' if trainer else ''}{LORA}")
    assert made.recipe.model.name_or_path == "org/small"
    assert rows(made.recipe) == (learnt or [("tr.jsonl", "train[:90%]")], held)
    untaken = [each for each in made.remarks if "line 1) is not taken over" in each]
    assert len(untaken) == ("train_dataset" in trainer and "tr.jsonl" not in str(learnt))


def test_rows_that_cannot_be_followed_are_told() -> None:
    said = trl('other = load_dataset("a/b")', f"eval_dataset=made(other), {LORA}").remarks
    assert any("load_dataset('a/b') (line 2) is not taken over" in each for each in said)
    assert any("eval_dataset (line 3) comes from code" in each for each in said)
    both = f"train_dataset=concatenate_datasets([train, other]), {LORA}"
    said = trl('other = load_dataset("a/b")', both).remarks
    assert any("train_dataset (line 3) comes from code: see that" in each for each in said)
    made = trl('train = load_dataset("a/b")', f'eval_dataset=train["test"], {LORA}')
    assert rows(made.recipe) == ([("tr.jsonl", "train[:90%]")], [("a/b", "test")])
    alone = 'data = load_dataset("a/b")\nSFTTrainer("c", train_dataset=made(), eval_dataset={}, {})'
    made = converted(alone.format('data["test"]', LORA))
    assert rows(made.recipe) == ([("a/b", "train")], [("a/b", "test")])
    parts = "parts = train.train_test_split(test_size=0.1)"
    trainer = f'train_dataset=parts["train"], eval_dataset=parts["test"], {LORA}'
    made = trl(parts, trainer)
    assert rows(made.recipe) == ([("tr.jsonl", "train[:90%]")], [])
    assert any("held out of the rows: write data.val_size" in each for each in made.remarks)


def test_a_script_without_model_or_rows_is_told_what_a_script_needs() -> None:
    for text, says in (
        ('trainer = SFTTrainer(model=args.model, train_dataset=load_dataset("a/b"))', "model"),
        ('trainer = SFTTrainer(model="a/b", train_dataset=made())', "training data"),
    ):
        with pytest.raises(UsageError, match=f"names no {says}") as caught:
            converted(text)
        assert "{" not in str(caught.value)  # no YAML to write into a script


def test_the_model_of_the_trainer() -> None:
    text = 'SFTTrainer(model="org/a", train_dataset=load_dataset("b/c"), peft_config=LoraConfig())'
    recipe = converted(text).recipe
    assert (recipe.model.name_or_path, recipe.data.train[0].path) == ("org/a", "b/c")
