"""`qtune merge`: the merged folder is the trained model, or there is no folder."""

from __future__ import annotations

import gc
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from qtune.errors import (
    CheckError,
    ExitCode,
    ModelError,
    OutputError,
    ResourceError,
    UsageError,
)
from qtune.merging import fidelity
from qtune.methods.base import CannotMerge
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.run import merge as merging_run
from qtune.run.display import Quiet
from qtune.run.merge import for_cpu, merge
from qtune.run.subject import Subject, load, resolve
from tests.run.made_run import LORA, make_run
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

IDS = torch.arange(3, 60).reshape(3, 19)


def run_merge(run: Path, target: Path, **settings: Any) -> dict[str, Any]:
    return merge(str(run), target, display=Quiet(), **settings)


def attached_logits(run: Path) -> torch.Tensor:
    loaded = load(resolve(str(run)), device=torch.device("cpu"))
    fidelity.widen(loaded.base.model)
    with torch.no_grad():
        logits: torch.Tensor = loaded.base.model(input_ids=IDS).logits
    return logits


def merged_logits(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits.float()


@pytest.mark.parametrize(
    "method",
    [
        LORA,
        LORA | {"use_dora": True},
        LORA | {"use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        LORA | {"modules_to_save": ["lm_head"]},
        LORA | {"modules_to_save": ["lm_head", "norm"], "dtype": "bfloat16"},
        {"name": "bitfit"},
    ],
    ids=["lora", "dora", "rslora", "saved-head", "saved-bf16", "bitfit"],
)
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_merged_is_attached(tmp_path: Path, method: dict[str, Any], compute_dtype: str) -> None:
    run = make_run(tmp_path, method=method, quantization={"compute_dtype": compute_dtype})
    report = run_merge(run, tmp_path / "merged")
    wanted = attached_logits(run)
    assert (merged_logits(tmp_path / "merged") - wanted).abs().max() <= 1e-5
    found = report["verification"]
    assert found["kl"] <= 1e-6
    assert found["top1"] == 1.0
    assert found["rows"] == "the held-out rows"
    assert found["positions"] > 100


def test_tied_ends_with_a_saved_head(tmp_path: Path) -> None:
    method = LORA | {"modules_to_save": ["lm_head"]}
    run = make_run(tmp_path, model=tiny_llama(tie_word_embeddings=True), method=method)
    report = run_merge(run, tmp_path / "merged")
    assert report["unties_embeddings"]
    assert report["verification"]["kl"] <= 1e-6
    assert (merged_logits(tmp_path / "merged") - attached_logits(run)).abs().max() <= 1e-5


def test_other_quantisations(tmp_path: Path) -> None:
    for index, quantization in enumerate(
        (
            {"bits": 16, "compute_dtype": "float32"},
            {"quant_type": "fp4", "double_quant": False},
            {"compute_dtype": "float32", "skip_modules": ["o_proj"]},
        )
    ):
        run = make_run(tmp_path / str(index), quantization=quantization)
        report = run_merge(run, tmp_path / str(index) / "merged")
        assert report["verification"]["kl"] <= 1e-6, quantization


def test_bf16_is_checked_and_its_cost_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    report = run_merge(run, tmp_path / "merged", settings={"dtype": "bfloat16"})
    assert report["dtype"] == "bfloat16"
    assert 1e-9 < report["verification"]["kl"] < 1e-5
    assert 1e-3 < report["rounding"] < 0.2
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_the_original_base_is_another_model(tmp_path: Path) -> None:
    run = make_run(tmp_path, model=tiny_llama(initializer_range=0.1))
    exact = run_merge(run, tmp_path / "exact")
    other = run_merge(run, tmp_path / "other", settings={"base": "original"})
    assert other["verification"]["kl"] > 100 * exact["verification"]["kl"]
    assert other["base"] == "original"
    difference = merged_logits(tmp_path / "exact") - merged_logits(tmp_path / "other")
    assert difference.abs().max() > 1e-3


def test_small_files_from_small_files(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_shard_size="100KB")
    report = run_merge(run, tmp_path / "merged", settings={"max_shard_size": "90KB"})
    assert report["files"] > 3
    assert report["verification"]["kl"] <= 1e-6


def test_the_bound_holds_back_a_wrong_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    with pytest.raises(CheckError, match=r"mean KL .* allowed 1\.00e-12") as caught:
        run_merge(
            run, tmp_path / "merged", overrides=["merge.max_kl=1e-12", "merge.dtype=bfloat16"]
        )
    assert caught.value.code == ExitCode.CHECK_FAILED
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob(".merged*"))

    # a merge that forgets the quantisation is caught by the check, not by the arithmetic
    from qtune.merging import merge as core

    monkeypatch.setattr(core, "base_of", lambda work: core.OriginalBase(work.blueprint))
    with pytest.raises(CheckError):
        run_merge(run, tmp_path / "merged", overrides=["merge.max_kl=1e-7"])
    assert not (tmp_path / "merged").exists()


def test_refusals_come_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    monkeypatch.setattr(merging_run.merging, "write", None)  # any work would fail
    monkeypatch.setattr(merging_run, "load", None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for target in (tmp_path / "full", tmp_path / "base" / "new", run / "merged", run):
        with pytest.raises(OutputError) as caught:
            run_merge(run, target)
        assert caught.value.code == ExitCode.OUTPUT_IN_USE
    with pytest.raises(UsageError, match="without an adapter"):
        run_merge(tmp_path / "base", tmp_path / "merged")
    monkeypatch.setattr(
        merging_run.plan.Machine, "probe", lambda: type("M", (), {"host_memory": 1000})()
    )
    with pytest.raises(ResourceError, match=r"1\.00 kB are free.*--no-verify"):
        run_merge(run, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "base",
        "full",
        "run",
        "test.jsonl",
        "train.jsonl",
    ]


def test_a_soft_prompt_cannot_be_merged(tmp_path: Path) -> None:
    run = make_run(tmp_path, method={"name": "prompt", "num_virtual_tokens": 4})
    with pytest.raises(CannotMerge, match="soft prompt") as caught:
        run_merge(run, tmp_path / "merged")
    assert caught.value.code == ExitCode.MODEL


def test_an_untrained_adapter_or_another_base_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", size=0.0)
    with pytest.raises(ModelError, match="edits change nothing"):
        run_merge(run, tmp_path / "merged")
    run = make_run(tmp_path / "two")
    tiny_llama(seed=9).save_pretrained(tmp_path / "two" / "base")
    with pytest.raises(ModelError, match="another base model"):
        run_merge(run, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_without_data_it_verifies_on_fixed_tokens(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "test.jsonl").unlink()
    report = run_merge(run, tmp_path / "merged")
    assert report["verification"]["rows"] == "random tokens"
    assert report["verification"]["positions"] == 512
    unverified = run_merge(run, tmp_path / "quick", verify=False)
    assert unverified["verification"] is None
    assert "not compared" in (tmp_path / "quick" / "README.md").read_text()


def test_an_adapter_alone_and_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    alone = tmp_path / "elsewhere"
    (run / "adapter").rename(alone)
    with pytest.raises(ModelError, match="no finished adapter"):
        run_merge(run, tmp_path / "merged")
    report = run_merge(alone, tmp_path / "merged", base=str(tmp_path / "base"), verify=True)
    assert report["verification"]["rows"] == "random tokens"
    with pytest.raises(UsageError, match="base 'base' is no folder here"):
        run_merge(alone, tmp_path / "again")
    checkpoint = run / "checkpoints" / "step-000001"
    checkpoint.parent.mkdir()
    alone.rename(checkpoint)
    report = run_merge(checkpoint, tmp_path / "third")
    assert report["thing"] == "run/step-000001"
    assert report["verification"]["rows"] == "the held-out rows"


@pytest.mark.parametrize("method", [LORA, {"name": "bitfit", "target_modules": ["q_proj"]}])
def test_an_adapter_alone_on_a_family_without_sdpa(tmp_path: Path, method: dict[str, Any]) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, **tokens))
    run = make_run(tmp_path, model=model, method=method)
    (run / "adapter").rename(tmp_path / "alone")
    report = run_merge(tmp_path / "alone", tmp_path / "merged", base=str(tmp_path / "base"))
    assert report["verification"]["kl"] < 1e-10


def test_the_card_names_no_place_of_this_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    report = run_merge(run, tmp_path / "merged")
    card = (tmp_path / "merged" / "README.md").read_text()
    assert str(tmp_path) not in card
    for text in ("# base, fine-tuned", "| method.rank | 4 |", "train.jsonl", "mean KL", "top-1"):
        assert text in card
    assert f"{report['verification']['kl']:.2e}" in card


def test_memory_stays_at_one_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(hidden_size=128, intermediate_size=512, num_hidden_layers=24)
    run = make_run(tmp_path, model=model)
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    largest = 4 * max(parameter.numel() for parameter in model.parameters())
    del model
    gc.collect()
    from qtune.merging import shard_file
    from qtune.merging.folding import Folding

    monkeypatch.setattr(shard_file, "SHEET", 2**14)  # sheets are the blocks that may be there

    held: list[int] = []
    called: list[str] = []
    produce = Folding.blocks

    def watched(self: Folding, spec: Any) -> Any:
        called.append(spec.name)
        if len(called) % 20 == 1:  # looking at every object takes a second
            held.append(live_bytes())
        return produce(self, spec)

    monkeypatch.setattr(Folding, "blocks", watched)
    run_merge(run, tmp_path / "merged", verify=False)
    assert len(called) > 150
    assert len(held) > 7
    made = 5 * largest  # its place, base, result and change, and one that is done
    assert max(held) - min(held) <= made < whole / 15
    assert math.isclose(sum(held) / len(held), min(held), abs_tol=made)


def live_bytes() -> int:
    """Bytes of all dense tensors that exist; each storage once."""
    storages = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and one.device.type == "cpu":
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_a_run_with_flash_attention_is_verified_on_the_cpu() -> None:
    section = ModelSection(name_or_path="x", attn_implementation="flash_attention_2")
    subject = Subject("model", "x", section, QuantizationSection())
    assert for_cpu(subject).model.attn_implementation == "sdpa"
    eager = replace(subject, model=section.model_copy(update={"attn_implementation": "eager"}))
    assert for_cpu(eager) is eager


@pytest.mark.parametrize(
    "method",
    [LORA, LORA | {"modules_to_save": ["lm_head"]}, LORA | {"use_dora": True}],
    ids=["lora", "saved-head", "dora"],
)
def test_what_does_not_fit_is_verified_layer_by_layer(
    tmp_path: Path, method: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, model=tiny_llama(tie_word_embeddings=True), method=method)
    whole = run_merge(run, tmp_path / "whole")
    monkeypatch.setattr(merging_run, "held_bytes", lambda: 0)
    plain = merging_run.fidelity.kept_bytes
    huge = 10**9 if not method.get("use_dora") else 10**8  # DoRA's norms are those of whole weights
    monkeypatch.setattr(merging_run.fidelity, "kept_bytes", lambda size: plain(size) + huge)
    if not method.get("use_dora"):
        monkeypatch.setattr(merging_run, "_plain", None)
    report = run_merge(run, tmp_path / "merged", settings={"max_memory": "80MB"})
    assert report["verification"]["kl"] <= 1e-6
    assert report["verification"]["positions"] == whole["verification"]["positions"]
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "merged" / path.name).read_bytes()
    settings = {"max_memory": "80MB", "dtype": "bfloat16"}
    with pytest.raises(CheckError):
        run_merge(run, tmp_path / "less", settings=settings, overrides=["merge.max_kl=1e-12"])


def test_a_tensor_that_is_edited_whole_must_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    monkeypatch.setattr(merging_run, "held_bytes", lambda: 0)
    with pytest.raises(ResourceError, match=r"needs 23\.1 MB .* 20\.0 MB are left.*--max-memory"):
        run_merge(run, tmp_path / "merged", settings={"max_memory": "20MB"})
