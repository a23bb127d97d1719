"""`qtune prune`: what it writes, what it refuses, and training on it afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from qtune.cli.app import run_app
from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import dequantize, is_transposed
from qtune.run.display import Quiet
from qtune.run.prune import Request, prune
from tests.models.workshop import load_folder
from tests.run.made_run import make_run, write_rows
from tests.run.test_families import FAMILIES, TOKENS
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from torch import Tensor

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart"
MODEL, ROWS = QUICKSTART / "model", QUICKSTART / "train.jsonl"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _prune(target: Path, method: str, model: Path = MODEL, **asked: Any) -> dict[str, Any]:
    request = Request(method, calibration=str(ROWS), rows=asked.pop("rows", 8), **asked)  # type: ignore[arg-type]
    return prune(str(model), target, request, display=Quiet())


def _linears(folder: Path) -> dict[str, Tensor]:
    """The linears' weights [out, in], by transformers' own loading."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").requires_grad_(False)
    return {
        name: module.weight.T if is_transposed(module) else module.weight
        for name, module in linear_modules(network).items()
    }


def test_errors_fall_from_magnitude_to_wanda_to_sparsegpt(tmp_path: Path) -> None:
    reports = {
        method: _prune(tmp_path / method, method) for method in ("magnitude", "wanda", "sparsegpt")
    }
    errors = {method: report["output_error"] for method, report in reports.items()}
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]
    before = load_file(MODEL / "model.safetensors")
    for method in reports:
        folder = tmp_path / method
        weights = _linears(folder)
        assert len(weights) == 28
        assert all(float((weight == 0).float().mean()) == 0.5 for weight in weights.values())
        after = load_file(folder / "model.safetensors")
        assert {name: (v.shape, v.dtype) for name, v in after.items()} == {
            name: (v.shape, v.dtype) for name, v in before.items()
        }
        outside = [name for name in after if name.removesuffix(".weight") not in weights]
        assert all(torch.equal(after[name], before[name]) for name in outside)
        assert (folder / "config.json").read_bytes() == (MODEL / "config.json").read_bytes()
        assert (folder / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()
        if method != "sparsegpt":
            assert all(torch.equal(v[v != 0], before[n][v != 0]) for n, v in after.items())


def test_a_layer_is_shown_what_the_pruned_ones_before_it_give(tmp_path: Path) -> None:
    """The report's figures, from the two models' weights and plain transformers' activations."""
    report = _prune(tmp_path / "new", "wanda", rows=1)
    ids = _only_row(report)
    before, after = _linears(MODEL), _linears(tmp_path / "new")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
    inputs: dict[str, Tensor] = {}
    for name, module in linear_modules(network).items():
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.update({name: given[0][0].double()})
        )
    with torch.no_grad():
        network(input_ids=torch.tensor([ids]))
    # q, k and v of a layer see what comes from the layers before it, whatever is done to itself.
    told = {linear["name"]: linear["output_error"] for linear in report["linears"]}
    for name in (name for name in told if name.endswith(("q_proj", "k_proj", "v_proj"))):
        whole = inputs[name] @ before[name].double().T
        lost = inputs[name] @ (before[name] - after[name]).double().T
        assert told[name] == pytest.approx(
            float(lost.square().sum() / whole.square().sum()), rel=1e-3
        )


def _only_row(report: dict[str, Any]) -> list[int]:
    """The row that was drawn: the only one of its length is not known, so it is drawn again."""
    from qtune import recipe
    from qtune.run.prune import _rows

    asked = recipe.for_model(str(MODEL))
    (row,) = _rows(asked, Request("wanda", calibration=str(ROWS), rows=1), Quiet())
    assert len(row) == report["calibration_tokens"]
    return row


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_a_pattern_holds_everywhere(tmp_path: Path, method: str) -> None:
    report = _prune(tmp_path / "new", method, pattern="2:4", rows=2)
    assert report["zeros"] * 2 == report["weights"]
    for weight in _linears(tmp_path / "new").values():
        assert ((weight.reshape(-1, 4) == 0).sum(1) == 2).all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**FAMILIES[family], **TOKENS)
    save_tiny(tmp_path / "base", AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    write_rows(tmp_path / "rows.jsonl", 4)
    request = Request("sparsegpt", calibration=str(tmp_path / "rows.jsonl"))
    report = prune(str(tmp_path / "base"), tmp_path / "new", request, display=Quiet())
    assert report["zeros"] * 2 == report["weights"]
    assert all(float((w == 0).float().mean()) == 0.5 for w in _linears(tmp_path / "new").values())


def test_training_keeps_the_zeros_in_nf4_and_a_merge_tells_that_it_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = _prune(tmp_path / "new", "wanda", rows=2)
    base = load_folder(tmp_path / "new", compute_dtype="bfloat16")
    pruned = _linears(tmp_path / "new")
    for name, module in linear_modules(base.model).items():
        weight = module.weight
        back = dequantize(weight.data, weight.quant_state)
        assert (back[pruned[name] == 0] == 0).all()
    assert report["layers"][0]["sparsity"] == 0.5
    write_rows(tmp_path / "train.jsonl", 4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {name_or_path: ./new}\nmethod: {name: lora, rank: 2}\n"
        "data: {train: [{path: train.jsonl}], max_length: 64}\n"
        "train: {max_steps: 1, batch_size: 2}\n"
    )
    run, merged = tmp_path / "run", tmp_path / "merged"
    assert run_app(["train", str(recipe), "-q", "-o", str(run)]) == 0
    assert run_app(["merge", str(run), "-o", str(merged), "--no-verify"]) == 0
    assert "fills its zeros" in capsys.readouterr().err
    assert not (merged / "pruning.json").exists()


@pytest.mark.parametrize("bits", [4, 16])
def test_a_merge_keeps_the_zeros_where_it_is_asked_to(
    tmp_path: Path, bits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _prune(tmp_path / "new", "wanda", rows=2)
    pruned = _linears(tmp_path / "new")
    write_rows(tmp_path / "train.jsonl", 4)
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(
        "model: {name_or_path: ./new}\nmethod: {name: lora, rank: 2}\n"
        f"quantization: {{bits: {bits}}}\noptim: {{learning_rate: 2e-2}}\n"
        "data: {train: [{path: train.jsonl}], max_length: 64}\n"
        "train: {max_steps: 3, batch_size: 2}\n"
    )
    assert run_app(["train", str(recipe), "-q", "-o", str(run)]) == 0
    whole, kept = tmp_path / "whole", tmp_path / "kept"
    into = ["merge", str(run), "-q", "--dtype", "float32"]
    assert run_app([*into, "-o", str(whole), "--no-verify"]) == 0
    capsys.readouterr()
    assert run_app([*into, "-o", str(kept), "--keep-mask", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verification"]["kl"] > 1e-6  # another model, and told
    filled = _linears(whole)
    for name, weight in _linears(kept).items():
        zeros = pruned[name] == 0
        assert (weight[zeros] == 0).all()
        assert torch.equal(weight[~zeros], filled[name][~zeros])
        assert (filled[name][zeros] != 0).float().mean() > 0.9


def test_zeros_that_are_not_there_are_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    assert run_app(["merge", str(run), "-q", "-o", str(tmp_path / "new"), "--keep-mask"]) == 2
    assert "merge.keep_mask: the base is not pruned" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_recipe_gives_the_rows_too(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", 6)
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name_or_path: ./none}\ndata: {train: [{path: train.jsonl}]}\n")
    request = Request("wanda", share=0.25, calibration=str(path), rows=3)
    report = prune(str(tmp_path / "base"), tmp_path / "new", request, display=Quiet())
    assert report["calibration_rows"] == 3
    assert report["zeros"] * 4 == report["weights"]


def test_refusals_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = save_tiny(tmp_path / "base"), tmp_path / "new"
    command = ["prune", str(source), "-o", str(target), "-q"]
    for wrong in (
        ["--pattern", "4:2"],
        ["--pattern", "2"],
        ["--pattern", "2:4", "--sparsity", "0.5"],
        ["--pattern", "2:48"],
        ["--sparsity", "1"],
        ["--rows", "0"],
    ):
        assert run_app([*command, "--method", "magnitude", *wrong]) == 2, wrong
    for method in ("wanda", "sparsegpt"):
        assert run_app([*command, "--method", method]) == 2
    assert "--calibration" in capsys.readouterr().err
    inside = ["prune", str(source), "-o", str(source / "new"), "-q", "--method", "magnitude"]
    assert run_app(inside) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert run_app([*command, "--method", "magnitude"]) == 0
    assert json.loads((target / "pruning.json").read_text())["output_error"] is None
    assert run_app([*command, "--method", "magnitude"]) == 7
    assert run_app(["quantize", str(source), "-o", str(tmp_path / "four"), "-q"]) == 0
    again = ["prune", str(tmp_path / "four"), "-o", str(tmp_path / "x"), "--method", "magnitude"]
    assert run_app([*again, "-q"]) == 4
    assert "quantised already" in capsys.readouterr().err


def test_weights_that_are_no_numbers_leave_nothing(tmp_path: Path) -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    source = save_tiny(tmp_path / "base", model)
    command = ["prune", str(source), "-o", str(tmp_path / "new"), "--method", "magnitude", "-q"]
    assert run_app(command) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
