"""Every tool's recipe becomes the values that its author meant."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qtune.errors import UsageError
from qtune.recipe import Recipe
from qtune.recipe.importing import Imported, convert
from tests.recipe.importing import given

Convert = Callable[..., Imported]
NO_CLIP = 1e9


def refusal(text: str, name: str = "theirs.yaml") -> str:
    Path(name).write_text(text)
    with pytest.raises(UsageError) as caught:
        convert(name)
    return str(caught.value)


def sources(recipe: Recipe) -> list[tuple[str, str, dict[str, str], str]]:
    return [(each.path, each.format, each.columns, each.split) for each in recipe.data.train]


def left(made: Imported) -> dict[str, str]:
    return {one.key: one.reason for one in made.left}


def test_axolotl(converted: Convert) -> None:
    made = converted(given.AXOLOTL)
    recipe = made.recipe
    assert made.tool == "axolotl"
    assert recipe.model.name_or_path == "org/small"
    assert (recipe.quantization.bits, recipe.quantization.double_quant) == (4, False)
    assert sources(recipe) == [
        ("someone/chats", "sharegpt", {"conversations": "talk"}, "train[:90%]"),
        ("someone/tasks", "alpaca", {}, "train"),
    ]
    assert recipe.model.chat_template is None  # one template cannot be both sources' prompt
    lora = recipe.method
    assert lora.model_dump(include={"rank", "alpha", "dropout", "target_modules"}) == {
        "rank": 24,
        "alpha": 48.0,
        "dropout": 0.0,
        "target_modules": ("q_proj", "v_proj"),
    }
    assert recipe.train.batch_size == 3 * 5
    assert recipe.train.num_train_epochs == 2
    assert (recipe.data.max_length, recipe.data.packing, recipe.data.val_size) == (1024, True, 0.02)
    optim = recipe.optim
    assert (optim.name, optim.learning_rate, optim.max_grad_norm) == ("adamw_8bit", 3e-4, 1.0)
    assert (optim.lr_scheduler_type, optim.min_lr_ratio, optim.warmup_steps) == ("cosine", 0.1, 12)
    assert (recipe.eval.steps, recipe.checkpoint.steps) == (40, 80)
    assert recipe.loss.train_on == "assistant"
    assert recipe.logging.report_to == ("wandb",)
    assert recipe.memory.micro_batch_size == "auto"


def test_nothing_of_theirs_is_dropped_in_silence(converted: Convert) -> None:
    made = converted(given.AXOLOTL)
    why = left(made)
    assert "no early stop" in why["early_stopping_patience"]
    assert why["output_dir"] == "sets nothing"
    assert "max_rows" in why["datasets.shards"]
    assert "qtune plan" in " ".join(why.values()) or "micro_batch_size" in why
    text = made.text(Path("ours"))
    assert "early_stopping_patience (3)" in text
    assert "learning_rate: 0.0003" in text
    assert "# learning_rate, line 27" in text
    assert "secretsecret" not in text + json.dumps([vars(one) for one in made.left])
    said = " ".join(made.remarks)
    assert "packed with many rows" in said
    assert "--devices" in said


def test_devices_multiply_the_batch(converted: Convert) -> None:
    made = converted(given.AXOLOTL, devices=8)
    assert made.recipe.train.batch_size == 3 * 5 * 8
    assert "--devices" not in " ".join(made.remarks)


def test_the_alpaca_prompt_is_kept(converted: Convert) -> None:
    text = given.AXOLOTL.replace("chat_template\n", "alpaca\n", 1)
    assert converted(text).recipe.model.chat_template == "alpaca"


def test_trl(converted: Convert) -> None:
    made = converted(given.TRL)
    recipe = made.recipe
    assert sources(recipe) == [("someone/chats", "auto", {}, "learn")]
    assert [each.split for each in recipe.data.eval] == ["check"]
    assert recipe.quantization.double_quant is False
    assert recipe.quantization.compute_dtype == "bfloat16"
    assert "float16 becomes bfloat16" in " ".join(made.remarks)
    assert recipe.method.target_modules == "all-linear"
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (8, 32.0, 0.05)
    assert recipe.loss.train_on == "assistant"
    assert (recipe.data.max_length, recipe.data.overlong) == (640, "truncate_end")
    assert (recipe.train.batch_size, recipe.train.max_steps) == (12, 300)
    optim = recipe.optim
    assert (optim.name, optim.lr_scheduler_type, optim.warmup_ratio) == ("adamw", "cosine", 0.05)
    assert optim.min_lr_ratio == 0.2
    assert optim.max_grad_norm == 1.0
    assert recipe.eval.steps == 25
    assert recipe.logging.report_to == ("wandb",)


def test_llama_factory(converted: Convert) -> None:
    Path("data").mkdir()
    Path("data/dataset_info.json").write_text(given.DATASET_INFO)
    Path("data/ours.json").write_text("[]")
    recipe = converted(given.LLAMA_FACTORY).recipe
    assert sources(recipe) == [
        (str(Path("data/ours.json").absolute()), "messages", {"messages": "talk"}, "train"),
        ("llamafactory/alpaca_en", "auto", {}, "train"),
    ]
    assert [each.max_rows for each in recipe.data.train] == [50, 50]
    assert recipe.quantization.bits == 8
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (12, 24.0, 0.0)
    assert recipe.method.target_modules == ("q_proj", "o_proj")
    assert recipe.model.chat_template == "mistral"
    assert (recipe.data.max_length, recipe.data.val_size) == (700, 0.1)
    assert (recipe.train.batch_size, recipe.train.num_train_epochs) == (8, 2.0)
    assert (recipe.optim.lr_scheduler_type, recipe.optim.warmup_ratio) == ("cosine", 0.1)
    assert recipe.loss.train_on == "assistant"


def test_an_unlisted_data_set_is_told(converted: Convert) -> None:
    made = converted(given.LLAMA_FACTORY)
    assert made.recipe.data.train[0].path == "data/ours.json"
    assert "dataset_info.json, which is not here" in " ".join(made.remarks)


def test_torchtune(converted: Convert) -> None:
    made = converted(given.TORCHTUNE)
    recipe = made.recipe
    assert recipe.model.name_or_path == "org/small"  # as the comment says it was downloaded
    assert sources(recipe) == [("someone/chats", "sharegpt", {"conversations": "talk"}, "train")]
    assert recipe.method.target_modules == ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (6, 12.0, 0.0)
    assert (recipe.quantization.bits, recipe.quantization.double_quant) == (4, True)
    assert (recipe.data.max_length, recipe.data.packing) == (900, True)
    assert (recipe.train.batch_size, recipe.train.num_train_epochs) == (12, 3)
    assert "held 12 sequences, each packed with many rows up to 900" in " ".join(made.remarks)
    optim = recipe.optim
    assert (optim.name, optim.learning_rate) == ("paged_adamw_8bit", 2e-5)
    assert (optim.weight_decay, optim.max_grad_norm, optim.warmup_steps) == (0.01, 0.5, 7)
    assert recipe.logging.report_to == ("wandb",)
    assert "- profiler.*: " in made.text(Path())


def test_the_fused_linears_of_phi(converted: Convert) -> None:
    text = given.TORCHTUNE.replace("llama3.qlora_llama3_8b", "phi3.qlora_phi3_mini")
    made = converted(text)
    assert made.recipe.method.target_modules == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert "one linear" in " ".join(made.remarks)


def test_litgpt(converted: Convert) -> None:
    Path("rows.json").write_text("[]")
    recipe = converted(given.LITGPT).recipe
    assert recipe.model.name_or_path == "org/small-llama"
    assert (recipe.quantization.quant_type, recipe.quantization.double_quant) == ("nf4", True)
    assert recipe.method.target_modules == (
        *("q_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    )
    assert sources(recipe) == [(str(Path("rows.json").absolute()), "alpaca", {}, "train")]
    assert recipe.model.chat_template == "alpaca"
    assert recipe.loss.train_on == "assistant"
    assert (recipe.data.val_size, recipe.data.max_length) == (0.2, 300)
    assert recipe.train.batch_size == 32
    optim = recipe.optim
    assert (optim.name, optim.learning_rate) == ("paged_adamw_32bit", 5e-4)
    assert (optim.weight_decay, optim.betas, optim.warmup_steps) == (0.02, (0.9, 0.95), 9)
    assert (optim.max_grad_norm, optim.min_lr_ratio) == (NO_CLIP, 0.0)
    assert (recipe.eval.steps, recipe.checkpoint.steps) == (60, 50)


def test_litgpt_on_a_model_with_one_linear_for_three(converted: Convert) -> None:
    made = converted(given.LITGPT.replace("small-llama", "falcon-7b"))
    assert made.recipe.method.target_modules[0] == "query_key_value"
    assert "theirs together" in " ".join(made.remarks)


def test_mlx(converted: Convert) -> None:
    Path("rows").mkdir()
    Path("rows/train.jsonl").write_text("{}\n")
    made = converted(given.MLX, layers_of={"mlx-community/Llama-3.2-3B-Instruct-4bit": 28}.get)
    recipe = made.recipe
    assert recipe.quantization.bits == 4
    assert "only MLX reads" in " ".join(made.remarks)
    assert [each.path for each in recipe.data.train] == [str(Path("rows/train.jsonl").absolute())]
    assert recipe.data.eval == ()
    assert recipe.method.layers_to_transform == (24, 25, 26, 27)
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (4, 40.0, 0.1)
    assert recipe.method.target_modules == ("self_attn.q_proj",)
    # 800 passes of 2 rows, 4 a step
    assert (recipe.train.batch_size, recipe.train.max_steps) == (8, 200)
    assert recipe.checkpoint.steps == 100
    assert recipe.loss.train_on == "last_assistant"
    optim = recipe.optim
    assert (optim.learning_rate, optim.lr_scheduler_type) == (2e-4, "cosine")
    assert (optim.warmup_steps, optim.min_lr_ratio) == (20, pytest.approx(0.1))
    assert optim.max_grad_norm == NO_CLIP


def test_of_an_unknown_model_the_last_layers_are_told(converted: Convert) -> None:
    made = converted(given.MLX)
    assert made.recipe.method.layers_to_transform == ()
    assert "is not known here" in left(made)["num_layers"]


def test_unsloth(converted: Convert) -> None:
    made = converted(given.UNSLOTH)
    recipe = made.recipe
    assert sources(recipe) == [("rows.jsonl", "messages", {}, "train")]
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.use_rslora) == (16, 32.0, True)
    assert recipe.method.target_modules == ("q_proj", "k_proj")
    assert (recipe.train.batch_size, recipe.train.max_steps, recipe.train.seed) == (8, 60, 3407)
    assert (recipe.optim.name, recipe.optim.weight_decay) == ("adamw_8bit", 0.01)
    assert (recipe.optim.warmup_steps, recipe.data.max_length) == (3, 1500)
    assert recipe.loss.train_on == "assistant"
    assert "secretsecret" not in made.text(Path())


@pytest.mark.parametrize("name", ["train.py", "train.ipynb"])
def test_a_script_is_read_and_never_run(converted: Convert, name: str) -> None:
    text = given.SCRIPT
    if name.endswith("ipynb"):
        text = json.dumps({"cells": [{"cell_type": "code", "source": text.splitlines(True)}]})
    made = converted(text, name)
    recipe = made.recipe
    assert recipe.model.name_or_path == "unsloth/small"
    assert sources(recipe) == [("someone/chats", "auto", {}, "train")]
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (32, 64.0, 0)
    assert recipe.method.target_modules == ("q_proj", "v_proj")
    assert (recipe.train.batch_size, recipe.train.max_steps, recipe.train.seed) == (8, 60, 7)
    assert (recipe.data.max_length, recipe.quantization.bits) == (1024, 4)
    assert (recipe.optim.name, recipe.optim.learning_rate) == ("adamw_8bit", 2e-4)
    assert recipe.loss.train_on == "assistant"
    assert "computed.output_dir" in left(made)


def test_what_a_packed_step_held_is_told(converted: Convert) -> None:
    said = " ".join(converted(f"{given.TRL}\npacking: true\n").remarks)
    assert "held 12 sequences, each packed with many rows up to 640 tokens" in said


def test_a_script_groups_by_length_as_it_says(converted: Convert) -> None:
    text = given.SCRIPT.replace("max_steps=60,", "max_steps=60, group_by_length=True,")
    assert converted(text, "a.py").recipe.train.group_by_length is True


def test_a_command_line_of_qlora(converted: Convert) -> None:
    made = converted(given.SHELL, "finetune.sh")
    recipe = made.recipe
    assert sources(recipe) == [("yahma/alpaca-cleaned", "alpaca", {}, "train")]
    assert (recipe.quantization.quant_type, recipe.quantization.double_quant) == ("fp4", False)
    assert recipe.quantization.compute_dtype == "bfloat16"
    assert recipe.data.max_length == 384 + 128
    assert (recipe.train.batch_size, recipe.train.max_steps) == (16, 200)
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (32, 16.0, 0.1)
    assert (recipe.optim.learning_rate, recipe.optim.max_grad_norm) == (1e-4, 0.3)
    # transformers' constant schedule has no warm-up, whatever warmup_ratio says
    assert (recipe.optim.lr_scheduler_type, recipe.optim.warmup_steps) == ("constant", 0)
    assert recipe.train.group_by_length is True
    assert left(made)["unheard_of"] == "qtune has no such setting"
    line = "python qlora.py --dataset oasst1 --lora_r 8 --max_steps 10"
    recipe = convert(line).recipe
    assert recipe.model.name_or_path == "EleutherAI/pythia-12b"
    assert recipe.data.eval[0].split == "test"
    assert (recipe.loss.train_on, recipe.quantization.compute_dtype) == ("all", "float32")


@pytest.mark.parametrize("objective", ["dpo", "kto", "orpo", "ipo", "grpo"])
def test_other_objectives_are_refused(objective: str) -> None:
    said = refusal(given.AXOLOTL + f"rl: {objective}\n")
    line = given.AXOLOTL.count("\n") + 1
    assert said.startswith(f"theirs.yaml:{line}: rl: ")
    assert objective.upper() in said
    assert "supervised" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (given.LLAMA_FACTORY.replace("stage: sft", "stage: dpo"), "DPO"),
        (given.LLAMA_FACTORY.replace("stage: sft", "stage: rm"), "a reward model"),
        (given.LLAMA_FACTORY.replace("type: lora", "type: full"), "trains every weight"),
        (given.LLAMA_FACTORY.replace("type: lora", "type: oft"), "is not LoRA"),
        (given.LLAMA_FACTORY.replace("do_train: true", "do_train: false"), "trains nothing"),
        ("model_name_or_path: a/b\ntemplate: qwen\nexport_dir: out\n", "qtune merge"),
        (given.TRL + "beta: 0.1\n", "DPO"),
        (given.TRL + "desirable_weight: 1.0\n", "KTO"),
        (given.TRL + "num_generations: 8\n", "rewards"),
        (given.TRL.replace("use_peft: true", "use_peft: false"), "trains every weight"),
        (given.AXOLOTL.replace("adapter: qlora", "adapter:"), "trains every weight"),
        (given.TORCHTUNE.replace("qlora_llama3_8b", "llama3_8b"), "trains every weight"),
        (given.TORCHTUNE + "loss: {_component_: torchtune.rlhf.loss.DPOLoss}\n", "preferences"),
        (given.MLX.replace("train: true", "train: false"), "only measures"),
        (given.MLX + "fine_tune_type: full\n", "trains every weight"),
        (given.UNSLOTH.replace("{max_seq", "{training_type: full, max_seq"), "trains every weight"),
        ("a: 1\nb: 2\n", "of no tool that is known"),
        ("model: {name_or_path: a/b}\ndata: {train: [{path: c}]}\n", "a recipe of qtune already"),
        ("- 1\n", "no table of keys"),
        ("base_model: a/b\nadapter: lora\nlora_r: 8\n", "names no training data"),
        (given.AXOLOTL.replace("lora_r: 24", "lora_r: 0"), "written lora_r"),
    ],
)
def test_what_is_no_supervised_recipe_is_refused(text: str, says: str) -> None:
    assert says in refusal(text)


def test_scripts_that_train_nothing_here() -> None:
    assert "DPO" in refusal("DPOTrainer(args=DPOConfig(beta=0.1))", "a.py")
    assert "no training in this script" in refusal("print(1)", "a.py")
    assert "not valid Python" in refusal("def", "a.py")
    assert "not a notebook" in refusal("[]", "a.ipynb")
    assert "qtune import cfg.yml" in refusal("accelerate launch -m axolotl train cfg.yml", "a.sh")
    assert "2 times, in lines 1, 2" in refusal("python qlora.py --a 1\npython qlora.py", "a.sh")
    assert "no command line" in refusal("ls", "a.sh")
    assert "every weight" in refusal("python qlora.py --full_finetune", "a.sh")


WEIRD = [True, -1, 1.5, "x", [], [1, "a"], {"a": 1}, [{"a": 1}], [None], "q_proj,v_proj"]
TEXTS = [given.LLAMA_FACTORY, given.TORCHTUNE, given.LITGPT, given.MLX, given.AXOLOTL]


@pytest.mark.parametrize(
    "text", TEXTS, ids=["llama-factory", "torchtune", "litgpt", "mlx", "axolotl"]
)
@pytest.mark.parametrize(
    "key", ["rank", "modules", "alpha", "batch", "data", "arguments", "query", " type"]
)
def test_a_value_of_a_wrong_kind_is_a_fault_and_no_crash(text: str, key: str) -> None:
    lines = [number for number, line in enumerate(text.splitlines()) if key in line]
    for number, weird in itertools.product(lines, WEIRD):
        own = text.splitlines()
        name, colon, _ = own[number].partition(":")
        own[number] = f"{name}{colon} {json.dumps(weird)}"
        Path("theirs.yaml").write_text("\n".join(own))
        with suppress(UsageError):
            convert("theirs.yaml").text(Path())
