from __future__ import annotations

import pytest

from tests.recipe.conftest import Faults, Read

MANY = """\
optim:
  rank: 8
  learning_rate: fast
  betas: [0.9, x]
  lr_scheduler_type: cosin
  learning_rat: 1e-4
method:
  rank: 0
  dropout: 2.0
  target_modules: [1, 2]
  use_rslora: yes
rank: 8
max_length: 20
quantization: {bits: 16, quant_type: nf4}
"""


def test_a_number_in_quotes_is_one_of_yaml(read: Read, faults: Faults) -> None:
    assert read("optim: {weight_decay: '0.1'}").recipe.optim.weight_decay == 0.1
    for text in ("'0_1'", "1_0", "' 1 '", "'٣'", "'nan'", "'true'"):
        [fault] = faults(f"optim:\n  weight_decay: {text}")
        assert fault.startswith("recipe.yaml:4: optim.weight_decay: ")


def test_all_faults_come_together_in_order_with_line_key_and_hint(faults: Faults) -> None:
    assert faults(MANY) == [
        "recipe.yaml:4: optim.rank: unknown key (belongs to method)",
        "recipe.yaml:5: optim.learning_rate: 'fast' is not a number",
        "recipe.yaml:6: optim.betas.1: 'x' is not a number",
        "recipe.yaml:7: optim.lr_scheduler_type: 'cosin' is not one of constant, linear, cosine "
        "(did you mean cosine?)",
        "recipe.yaml:8: optim.learning_rat: unknown key (did you mean learning_rate?)",
        "recipe.yaml:10: method.rank: must be at least 1, not 0",
        "recipe.yaml:11: method.dropout: must be below 1, not 2.0",
        "recipe.yaml:12: method.target_modules: [1, 2] is not all-linear, a list of names or text",
        "recipe.yaml:13: method.use_rslora: 'yes' is not true or false (write true)",
        "recipe.yaml:14: rank: unknown key (write method.rank)",
        "recipe.yaml:16: quantization.quant_type: nothing would read it: only 4-bit weights have "
        "it (remove it, or --set quantization.quant_type=)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {max_steps: 2.5}", "train.max_steps: 2.5 is not a whole number"),
        ("train: {max_steps: 64.0}", "train.max_steps: 64.0 is not a whole number (write 64)"),
        ("train: {max_steps: '64'}", "train.max_steps: '64' is not a whole number (write 64)"),
        ("train: {seed: 1_000}", "train.seed: '1_000' is not a whole number (write 1000)"),
        ("train: {batch_size: true}", "train.batch_size: true is not a whole number"),
        ("train: {batch_size: 0}", "train.batch_size: must be at least 1, not 0"),
        ("train: {seed: 4294967296}", "train.seed: must be below 4.29497e+09, not 4294967296"),
        ("optim: {learning_rate: .inf}", "optim.learning_rate: not a finite number"),
        ("optim: {learning_rate: .nan}", "optim.learning_rate: "),
        ("optim: {learning_rate: 1e999}", "optim.learning_rate: not a finite number"),
        ("optim: {learning_rate: 0}", "optim.learning_rate: must be above 0, not 0"),
        ("optim: {learning_rate: [1]}", "optim.learning_rate: [1] is not a number"),
        ("optim: {learning_rate: {a: 1}}", "optim.learning_rate: a table of keys is not a number"),
        ("optim: {betas: [0.9]}", "optim.betas: [0.9] is not a list of 2 numbers"),
        ("optim: {betas: [0.9, 0.9, 0.9]}", "optim.betas: [0.9, 0.9, 0.9] is not a list of 2 num"),
        ("optim: {betas: [0.9, 1.5]}", "optim.betas.1: must be at most 1, not 1.5"),
        ("optim: [1]", "optim: a list is not a table of keys (its keys: name, learning_rate"),
        ("train: yes", "train: 'yes' is not a table of keys (its keys: num_train_epochs"),
        ("method: bitfit", "method: 'bitfit' is not a table of keys (write method: {name: bitfit}"),
        (
            "method: [lora, {name: peft, type: LN_TUNING}]",
            "method.parts.1.name: 'peft' is no part of several methods: its layers are PEFT's own, "
            "which do not stand over or under others (name it alone)",
        ),
        ("method: {name: lor}", "method.name: unknown method 'lor' (did you mean lora?)"),
        ("method: {name: bitfit, rank: 2}", "method.rank: unknown key (a key of method lora"),
        ("method: {rank_pattern: {a: 0}}", "method.rank_pattern.a: must be at least 1, not 0"),
        ("method: {rank_pattern: 3}", "method.rank_pattern: 3 is not a table from names to whole"),
        ("method: {target_modules: '*.q'}", "method.target_modules: '*.q' is not a regular expre"),
        ("method: {layers_to_transform: [-1]}", "method.layers_to_transform.0: must be at least"),
        (
            "method: {exclude_modules: head}",
            "method.exclude_modules: 'head' is not a list of names",
        ),
        ("quantization: {quant_type: nf5}", "quantization.quant_type: 'nf5' is not one of nf4, fp"),
        ("quantization: {bits: 5}", "quantization.bits: 5 is not one of 4, 8, 16"),
        ("logging: {report_to: [wandbb]}", "logging.report_to.0: 'wandbb' is not one of tensorb"),
        ("memory: {micro_batch_size: x}", "memory.micro_batch_size: 'x' is not auto or a whole"),
        ("memory: {micro_batch_size: 0}", "memory.micro_batch_size: must be at least 1, not 0"),
        ("memory: {activations: 3}", "memory.activations: 3 is not"),
        ("memory: {budget: 48}", "memory.budget: 48 is not a size such as 20GB"),
        ("memory: {budget: 0GB}", "memory.budget: '0GB' is not a size such as 20GB"),
        ("merge: {max_shard_size: 5 loaves}", "merge.max_shard_size: '5 loaves' is not a size"),
        ("env: {LD_PRELOAD: x}", "env: unknown key (a recipe sets no environment variables)"),
        ("lerning_rate: 1", "lerning_rate: unknown key (did you mean learning_rate?)"),
        ("optim: {nesterov: true}", "optim.nesterov: unknown key (keys: name, learning"),
        (
            "train: {gradient_checkpointing: true}",
            "train.gradient_checkpointing: unknown key (write memory.act",
        ),
        ("train: {lora_rank: 1}", "train.lora_rank: unknown key (write method.rank)"),
    ],
)
def test_one_fault_reads_well(faults: Faults, text: str, expected: str) -> None:
    [fault] = faults(text + "\n")
    assert fault.startswith(f"recipe.yaml:3: {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {name_or_path: m}\n", ["recipe.yaml: data: missing"]),
        ("data: {}\nmodel: {name_or_path: m}\n", ["recipe.yaml:1: data.train: missing"]),
        (
            "model: {name_or_path: ''}\ndata: {train: []}\n",
            ["model.name_or_path: an empty text", "data.train: an empty list"],
        ),
        (
            "model: {name_or_path: 123}\ndata: t.jsonl\n",
            ['is not text (write "123")', "(write data: {train: [{path: t.jsonl}]})"],
        ),
        (
            "model: m\ndata: {train: t.jsonl}\n",
            ["is not a list of tables (write [{path: t.jsonl}])"],
        ),
        (
            "model: m\ndata:\n  train:\n    - path: x\n      formt: y\n",
            ["recipe.yaml:5: data.train.0.formt: unknown key (did you mean format?)"],
        ),
        (
            "model: m\ndata:\n  train:\n    - format: text\n",
            ["recipe.yaml:4: data.train.0.path: mis"],
        ),
        (
            "model: m\ndata: {train: [x]}\n",
            ["data.train.0: 'x' is not a table of keys (write {path: x})"],
        ),
    ],
)
def test_model_and_data(faults: Faults, text: str, expected: list[str]) -> None:
    found = faults(text, whole=True)
    assert len(found) == len(expected)
    for fault, part in zip(found, expected, strict=True):
        assert part in fault


def test_texts_of_the_file_cannot_break_a_line_or_reach_the_terminal(faults: Faults) -> None:
    for text in ('"a\\n\\e[31m": 1', 'method: "x\\ny"', f"{'k' * 900}: 1", 'extends: "a\\e"'):
        [fault] = faults(text + "\n")
        assert fault.isprintable()
        assert len(fault) < 700


def test_an_empty_value_is_no_fault_even_where_the_key_is_unknown(read: Read) -> None:
    recipe = read("wandb_project:\noptim: {learning_rate: , wibble: null}\nseed:\n").recipe
    assert recipe == read().recipe


def test_a_fault_does_not_hide_or_invent_faults_between_keys(faults: Faults) -> None:
    # eval is faulty: whether there are held-out rows is not known
    assert len(faults("optim: {eps: x, name: sgd, min_lr_ratio: 0.1}\n")) == 2
    write = "model: m\ndata: {train: [{path: x}], eval: y}\neval: {steps: 5}\n"
    assert len(faults(write, whole=True)) == 1
