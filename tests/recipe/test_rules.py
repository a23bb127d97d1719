from __future__ import annotations

import pytest

from qtune.errors import UsageError
from qtune.recipe import load
from qtune.recipe.conflicts import CONFLICTS
from qtune.recipe.keys import is_key
from qtune.recipe.unread import UNREAD
from tests.recipe.conftest import MINIMAL, Faults, Read, Write

HELD_OUT = "val_size: 0.1\n"


def test_the_tables_name_real_keys() -> None:
    for rule in (*UNREAD, *CONFLICTS):
        keys = rule.keys if hasattr(rule, "keys") else (rule.key,)
        assert all(is_key(key) for key in (*keys, *rule.because))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("quantization: {bits: 8, double_quant: true}", "quantization.double_quant"),
        ("quantization: {bits: 16, quant_type: fp4}", "quantization.quant_type"),
        ("quantization: {bits: 16, skip_modules: [x]}", "quantization.skip_modules"),
        ("optim: {min_lr_ratio: 0.1}", "optim.min_lr_ratio"),
        ("optim: {name: lion_8bit, eps: 1e-6}", "optim.eps"),
        ("eval: {steps: 5}", "eval.steps"),
        ("packing: true\ntrain: {group_by_length: true}", "train.group_by_length"),
        ("train: {max_steps: 5, num_train_epochs: 2}", "train.num_train_epochs"),
        ("optim: {warmup_steps: 5, warmup_ratio: 0.1}", "optim.warmup_ratio"),
        ("eval: {at_start: false}", "eval.at_start"),
        ("eval: {batch_size: 5}", "eval.batch_size"),
        ("eval: {generate_rows: 5}", "eval.generate_rows"),
        ("eval: {max_new_tokens: 5}", "eval.max_new_tokens"),
        ("val_size: 0.1\neval: {max_new_tokens: 5}", "eval.max_new_tokens"),
        ("checkpoint: {metric: loss}", "checkpoint.metric"),
        ("checkpoint: {final: best}", "checkpoint.final"),
    ],
)
def test_a_setting_that_nothing_reads_is_a_fault(faults: Faults, text: str, key: str) -> None:
    [fault] = faults(text + "\n")
    assert f" {key}: nothing would read it: " in fault


@pytest.mark.parametrize(
    "text",
    [
        "quantization: {bits: 16}",
        "quantization: {bits: 8, skip_modules: [x]}",
        "optim: {lr_scheduler_type: cosine, min_lr_ratio: 0.1}",
        "optim: {name: adamw, eps: 1e-6}",
        "val_size: 0.1\neval: {steps: 5, generate_rows: 4, max_new_tokens: 5}",
        "val_size: 0.1\neval: {generate_rows: 4}\ncheckpoint: {metric: token_f1}",
        "checkpoint: {final: last}",
        "val_size: 20",
        "gates: {max_peak_memory: 20GB, min_tokens_per_second: 5, max_wall_time: 2h}",
        "val_size: 20\neval: {generate_rows: 5}\ngates: {max_loss: 2, min_token_f1_gain: 0}",
    ],
)
def test_settings_that_are_read_are_fine(read: Read, text: str) -> None:
    read(text + "\n")


def test_the_length_on_the_command_line_is_the_one_that_is_read(read: Read, faults: Faults) -> None:
    recipe = read("train: {num_train_epochs: 2}\n", "train.max_steps=5").recipe
    assert (recipe.train.max_steps, recipe.train.num_train_epochs) == (5, 2)
    [fault] = faults("train: {max_steps: 5}\n", "train.epochs=2")
    assert "train.epochs=2: " in fault
    assert "train.max_steps wins; empty it" in fault
    recipe = read("train: {max_steps: 5}\n", "train.epochs=2", "train.max_steps=").recipe
    assert (recipe.train.max_steps, recipe.train.num_train_epochs) == (None, 2)


def test_a_recipe_may_idle_a_key_of_its_fragment_but_not_its_own(
    read: Read, faults: Faults, write: Write
) -> None:
    assert read("extends: method/qlora\noptim: {warmup_steps: 5}\n").recipe.optim.warmup_steps == 5
    write("optim: {warmup_steps: 5}\n", "a.yaml")
    [fault] = faults("extends: ./a.yaml\noptim: {warmup_ratio: 0.1}\n")
    assert "optim.warmup_ratio: nothing would read it" in fault


def test_values_that_contradict(faults: Faults) -> None:
    [fault] = faults("val_size: 0.1\ncheckpoint: {metric: exact_match}\n")
    assert fault.endswith("(set eval.generate_rows)")
    [fault] = faults("val_size: 1.5\n")
    assert "1.5 is not a share below 1 or a whole number of rows" in fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gates: {max_loss: 1}", "gates.max_loss: 1 is judged on held-out rows"),
        ("gates: {min_token_f1: 0.5}", "gates.min_token_f1: 0.5 is judged on held-out rows"),
        ("val_size: 9\ngates: {min_exact_match: 0.5}", "(set eval.generate_rows)"),
        (
            "val_size: 9\neval: {at_start: false}\ngates: {min_loss_drop: 0.5}",
            "judged against the untouched base",
        ),
    ],
)
def test_a_gate_that_nothing_could_judge_is_a_fault(faults: Faults, text: str, says: str) -> None:
    [fault] = faults(text + "\n")
    assert says in fault


def test_no_set_takes_a_gate_away_unsaid(write: Write) -> None:
    text = "val_size: 9\neval: {generate_rows: 5}\ngates: {min_exact_match: 0.5}\n"
    path = write(MINIMAL + text)
    load(path)
    with pytest.raises(UsageError, match="none are generated"):
        load(path, ["eval.generate_rows=0"])


def test_an_unknown_gate_is_told_the_nearest(faults: Faults) -> None:
    [fault] = faults("val_size: 9\ngates: {min_exact_mach: 0.5}\n")
    assert "gates.min_exact_mach: unknown key" in fault
    assert "min_exact_match" in fault


@pytest.mark.parametrize(
    ("keys", "more", "key"),
    [
        ("split_by: topic", "", "data.split_by"),
        ("packing: true", "method: {name: prompt}", "data.packing"),
        ("packing: true", "method: [lora, long_lora]", "data.packing"),
        ("shuffle: false", "train: {group_by_length: true}", "train.group_by_length"),
        ("mix: concat, eval: [{path: z, weight: 2}]", "", "data.eval.0.weight"),
    ],
)
def test_data_settings_that_cannot_be(faults: Faults, keys: str, more: str, key: str) -> None:
    text = f"model: m\ndata: {{train: [{{path: x}}, {{path: y}}], {keys}}}\n{more}\n"
    [fault] = faults(text, whole=True)
    assert f" {key}: " in fault


def test_offline_and_a_tracker_that_sends(faults: Faults, read: Read) -> None:
    [fault] = faults("offline: true\nlogging: {report_to: [tensorboard, wandb]}\n")
    assert "logging.report_to: " in fault
    assert "model.offline forbids it" in fault
    assert read("offline: true\nlogging: {report_to: [tensorboard]}\n").recipe.model.offline


def test_a_weight_needs_the_mix_that_looks_at_it(faults: Faults) -> None:
    text = "model: m\ndata: {mix: concat, train: [{path: x, weight: 2}, {path: y}]}\n"
    [fault] = faults(text, whole=True)
    assert "data.train.0.weight: nothing would read it: only mix: weighted" in fault


def test_two_kinds_of_held_out_rows(faults: Faults) -> None:
    text = "model: m\ndata: {train: [{path: x}], eval: [{path: y}], val_size: 0.1}\n"
    [fault] = faults(text, whole=True)
    assert "data.val_size: nothing would read it: data.eval already names" in fault


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("path: ./x.json, delimiter: ','", "delimiter"),
        ("path: ./x.parquet, column_names: [a]", "column_names"),
        ("path: ./x.csv, config: en", "config"),
        ("path: ./x.csv, revision: main", "revision"),
        ("path: ./x.csv, split: test", "split"),
        ("path: ./*.jsonl, split: 'test[:5%]'", "split"),
        ("path: ./data, config: en", "config"),
        ("path: hub/x, delimiter: ','", "delimiter"),
        ("path: hub/x, format: messages, prompt_template: '{a}'", "prompt_template"),
        ("path: hub/x, format: text, labels: [a, b]", "labels"),
    ],
)
def test_keys_a_source_does_not_use(faults: Faults, source: str, key: str) -> None:
    [fault] = faults(f"model: m\ndata: {{train: [{{{source}}}]}}\n", whole=True)
    assert f"data.train.0.{key}: nothing would read it" in fault


@pytest.mark.parametrize(
    "source",
    [
        "path: ./x.txt, delimiter: '||', column_names: [a, b]",
        "path: ./x.CSV.gz, delimiter: ';'",
        "path: hub/x, config: en, split: test, revision: main",
        "path: ./x.json, prompt_template: '{a}'",
        "path: ./x.csv, labels: [a, b]",
        "path: ./x.csv, labels: names.txt",
        "path: ./x.csv, format: classification, prompt_template: '{a}', labels: [a, b]",
        "path: ./x.json, split: 'test[:5%]', column_names: [a, b]",
        "path: ./x.csv, split: 'train[:5%]'",
        "path: ./data, split: test, delimiter: ';', column_names: [a]",
    ],
)
def test_keys_a_source_uses(read: Read, source: str) -> None:
    read("", f"data.train=[{{{source}}}]")


def test_a_local_model_has_no_revision(faults: Faults, write: Write) -> None:
    write("{}", "m/config.json")
    text = "model: {name_or_path: m, revision: main}\ndata: {train: [{path: x}]}\n"
    [fault] = faults(text, whole=True)
    assert "model.revision: nothing would read it: a local folder has no revisions" in fault


@pytest.mark.parametrize(
    "override", ["eval.generate_rows=0", "eval.generate_rows=", "data.val_size=0"]
)
def test_a_set_may_idle_a_key_of_the_file(write: Write, override: str) -> None:
    path = write(MINIMAL + "eval: {generate_rows: 5, max_new_tokens: 9}\nval_size: 0.1\n")
    assert load(path, [override]).recipe.eval.max_new_tokens == 9


def test_a_set_that_nothing_reads_is_a_fault_all_the_same(write: Write) -> None:
    path = write(MINIMAL)
    with pytest.raises(UsageError, match=r"eval\.max_new_tokens: nothing would read it"):
        load(path, ["eval.max_new_tokens=9"])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("memory: {base: stream}", "memory.base"),
        ("memory: {dequantized_layers: all}", "memory.dequantized_layers"),
        ("memory: {on_oom: shrink}", "memory.on_oom"),
        ("quantization: {bits: 16}", "quantization.bits"),
    ],
)
def test_layers_that_cannot_be_shared_out(read: Read, faults: Faults, text: str, key: str) -> None:
    [fault] = faults(f"{text}\ndistributed: {{strategy: fsdp}}\n")
    assert "distributed.strategy: 'fsdp' " in fault
    (rule,) = [r for r in CONFLICTS if r.key == "distributed.strategy" and r.because == (key,)]
    assert rule.message in fault
    for strategy in ("auto", "ddp"):
        read(f"{text}\ndistributed: {{strategy: {strategy}}}\n")


def test_whole_bases_have_no_shares_to_put_elsewhere(faults: Faults) -> None:
    [fault] = faults("distributed: {strategy: ddp, offload: true}\n")
    assert " distributed.offload: nothing would read it: " in fault


def test_what_peft_trains_is_not_put_elsewhere(read: Read, faults: Faults) -> None:
    read("method: {name: peft}\ndistributed: {strategy: fsdp}\n")
    [fault] = faults("method: {name: peft}\ndistributed: {offload: true}\n")
    assert "distributed.offload: true puts weights elsewhere" in fault
