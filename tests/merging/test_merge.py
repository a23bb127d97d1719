"""Merging hand-made edits: every tensor against the loader's own base and plain arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from qtune import models
from qtune.errors import CheckError, ModelError, UsageError
from qtune.merging import Chat, fidelity, write
from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import weight_of
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests.merging.workshop import (
    NF4,
    QUERY,
    UP,
    adding,
    low_rank,
    merged,
    prepared,
    replacing,
    tensors,
    usual_edits,
)
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def trained_weights(base: Path, quantization: QuantizationSection) -> dict[str, torch.Tensor]:
    """Every weight as the loader's model computes with it, dense."""
    loaded = models.load(
        ModelSection(name_or_path=str(base)),
        quantization,
        device=torch.device("cpu"),
        activations="none",
    ).model
    weights = {name: value.clone() for name, value in loaded.named_parameters()}
    linears = {f"{name}.weight": weight_of(one) for name, one in linear_modules(loaded).items()}
    return weights | linears


@pytest.mark.parametrize(
    "quantization",
    [
        NF4,
        QuantizationSection(double_quant=False),
        QuantizationSection(quant_type="fp4", compute_dtype="float32"),
        QuantizationSection(skip_modules=("up_proj", "model.layers.1.self_attn.k_proj")),
        QuantizationSection(bits=16),
        QuantizationSection(bits=8, compute_dtype="float32"),
    ],
    ids=["nf4-double", "nf4-bf16", "fp4", "skip", "16-bit", "int8"],
)
def test_every_tensor_is_the_trained_one_plus_its_change(
    tmp_path: Path, quantization: QuantizationSection
) -> None:
    base = save_tiny(tmp_path / "base")
    report = merged(base, tmp_path / "out", usual_edits(), quantization=quantization)
    changes = {UP: low_rank(128, 64, seed=1), QUERY: low_rank(64, 64, seed=2)}
    found = tensors(tmp_path / "out")
    trained = trained_weights(base, quantization)
    assert found.keys() == trained.keys()
    for name, value in trained.items():
        wanted = value.float() + changes.get(name, 0.0)
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], wanted), name
    assert (report.edits, report.tensors, report.rounding) == (2, 21, 0.0)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_a_base_that_is_stored_quantised(tmp_path: Path, quant_type: str) -> None:
    save_tiny(tmp_path / "dense")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=quant_type, bnb_4bit_use_double_quant=True
    )
    packed = AutoModelForCausalLM.from_pretrained(
        tmp_path / "dense", dtype=torch.float32, quantization_config=config
    )
    packed.save_pretrained(tmp_path / "packed")
    quantization = QuantizationSection(quant_type=quant_type, compute_dtype="float32")
    merged(tmp_path / "packed", tmp_path / "out", usual_edits(), quantization=quantization)
    found, trained = tensors(tmp_path / "out"), trained_weights(tmp_path / "packed", quantization)
    changes = {UP: low_rank(128, 64, seed=1), QUERY: low_rank(64, 64, seed=2)}
    assert found.keys() == trained.keys()
    for name, value in trained.items():
        assert torch.equal(found[name], value + changes.get(name, 0.0)), name
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in written
    assert written["dtype"] == "float32"
    with pytest.raises(UsageError, match="no original weights"):
        merged(
            tmp_path / "packed",
            tmp_path / "other",
            usual_edits(),
            quantization=quantization,
            onto="original",
        )


def test_the_original_base_is_the_stored_one(tmp_path: Path) -> None:
    model = tiny_llama()
    base = save_tiny(tmp_path / "base", model)
    merged(base, tmp_path / "original", usual_edits(), onto="original")
    merged(base, tmp_path / "dequantized", usual_edits())
    original, dequantized = tensors(tmp_path / "original"), tensors(tmp_path / "dequantized")
    stored = dict(model.named_parameters())
    assert torch.equal(original[UP], stored[UP].detach() + low_rank(128, 64, seed=1))
    other = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(original[other], stored[other].detach())
    moved = (dequantized[other] - original[other]).norm() / original[other].norm()
    assert 0.07 < moved < 0.12  # NF4's error on Gaussian weights is 0.092


def test_many_files_equal_one_and_load_in_plain_transformers(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", max_shard_size="100KB")
    assert len(list(base.glob("*.safetensors"))) > 3
    single = merged(base, tmp_path / "single", usual_edits())
    sharded = merged(base, tmp_path / "sharded", usual_edits(), max_shard_bytes=70_000)
    assert single.files == 1
    assert sharded.files > 3
    one, many = tensors(tmp_path / "single"), tensors(tmp_path / "sharded")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    for folder in ("single", "sharded"):
        model, facts = AutoModelForCausalLM.from_pretrained(
            tmp_path / folder, output_loading_info=True
        )
        assert not any(facts.values()), facts
        assert torch.equal(model.get_parameter(UP), one[UP])


def test_companions(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")  # as older checkpoints say it
    (base / "config.json").write_text(json.dumps(config))
    (base / "secret.txt").write_text("not mine to copy")
    merged(base, tmp_path / "out", usual_edits(), dtype=torch.bfloat16)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {
        **{key: value for key, value in config.items() if key != "torch_dtype"},
        "dtype": "bfloat16",
    }
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "qtune_merge.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    before, after = (AutoTokenizer.from_pretrained(path) for path in (base, tmp_path / "out"))
    assert before("a question?").input_ids == after("a question?").input_ids
    assert before.chat_template == after.chat_template
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("edited", [(HEAD,), (EMBEDDING,), (HEAD, EMBEDDING)])
def test_an_edit_parts_tied_ends(tmp_path: Path, edited: tuple[str, ...]) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    base = save_tiny(tmp_path / "base", model)
    assert HEAD not in tensors(base)
    edits = {name: adding(low_rank(320, 64, seed=index)) for index, name in enumerate(edited)}
    report = merged(base, tmp_path / "out", edits)
    assert report.unties
    result, facts = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(facts.values()), facts
    for name in (HEAD, EMBEDDING):
        wanted = model.model.embed_tokens.weight.detach()
        if name in edited:
            wanted = wanted + low_rank(320, 64, seed=edited.index(name))
        assert torch.equal(result.get_parameter(name), wanted), name


def test_a_tie_stays_when_no_end_is_edited(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", tiny_llama(tie_word_embeddings=True))
    report = merged(base, tmp_path / "out", usual_edits())
    assert not report.unties
    assert HEAD not in tensors(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_gpt2_keeps_its_layout_and_gets_its_names(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    settings = {"n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 96, "n_positions": 32}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    model = GPT2LMHeadModel(GPT2Config(**settings, **ends))
    model.save_pretrained(tmp_path / "whole")
    model.transformer.save_pretrained(tmp_path / "base")  # names without "transformer."
    (tmp_path / "base" / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    name = "transformer.h.0.attn.c_attn.weight"  # [in, out] = [64, 192]
    change = low_rank(64, 192)
    sixteen = QuantizationSection(bits=16, compute_dtype="float32")
    merged(tmp_path / "base", tmp_path / "out", {name: adding(change)}, quantization=sixteen)
    result, facts = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(facts.values()), facts
    assert torch.equal(result.get_parameter(name), model.get_parameter(name).detach() + change)


def test_biases_are_made_where_the_family_can_have_them(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    name = "model.layers.0.self_attn.q_proj.bias"
    value = torch.linspace(-1, 1, 64)
    edit = replacing(value)
    edit = type(edit)(needs_base=False, apply=edit.apply, may_create=True)
    merged(base, tmp_path / "out", {name: edit})
    result, facts = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(facts.values()), facts
    assert result.config.attention_bias is True
    assert result.config.mlp_bias is False
    assert torch.equal(result.get_parameter(name), value)
    assert not result.get_parameter("model.layers.1.self_attn.k_proj.bias").any()


def refused(base: Path, out: Path, edits: dict[str, object], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        merged(base, out, edits)  # type: ignore[arg-type]
    assert sorted(path.name for path in base.parent.iterdir()) == ["base"]


def test_faulty_edits_write_nothing(tmp_path: Path) -> None:
    base, out = save_tiny(tmp_path / "base"), tmp_path / "out"
    foreign = {**usual_edits(), "model.layers.7.mlp.up_proj.weight": adding(torch.ones(1))}
    refused(base, out, foreign, r"1 edits .* no tensor .* model\.layers\.7\.mlp\.up_proj\.weight")
    idle = {**usual_edits(), "lm_head.weight": adding(torch.zeros(320, 64))}
    refused(base, out, idle, r"1 of 3 edits change nothing: lm_head\.weight")
    misshapen = {UP: replacing(torch.zeros(64, 128))}
    refused(base, out, misshapen, r"\[64, 128\], the base has \[128, 64\]")
    infinite = {UP: adding(torch.full((128, 64), float("nan")))}
    refused(base, out, infinite, "NaN or infinite")


def test_a_failed_verification_publishes_nothing(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")

    def verify(folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        raise CheckError("too far")

    with pytest.raises(CheckError):
        merged(base, tmp_path / "out", usual_edits(), verify=verify)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_rounding_is_told(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    small = {UP: adding(low_rank(128, 64, size=2e-5)), QUERY: adding(low_rank(64, 64, size=2e-5))}
    exact = merged(base, tmp_path / "exact", small)
    rounded = merged(base, tmp_path / "rounded", small, dtype=torch.bfloat16)
    assert exact.rounding < 1e-3
    one, other = tensors(tmp_path / "exact"), tensors(tmp_path / "rounded")
    lost = sum((one[name] - other[name].float()).square().sum() for name in (UP, QUERY)).sqrt()
    given = torch.cat(
        [low_rank(128, 64, size=2e-5).flatten(), low_rank(64, 64, size=2e-5).flatten()]
    )
    assert rounded.rounding == pytest.approx(float(lost / given.norm()), rel=1e-2)


def test_fidelity_against_arithmetic() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, table: torch.Tensor) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(table)

        def forward(self, *, input_ids: torch.Tensor, use_cache: bool) -> object:
            assert not use_cache
            return type("Output", (), {"logits": self.table[input_ids]})

    ours = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    theirs = torch.log(torch.tensor([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])) + 3.0  # shift: no matter
    rows = [[0, 1, 1], [1]]
    result = fidelity.compare(fidelity.all_logits(Fixed(ours), rows), Fixed(theirs), rows)
    one = 0.5 * torch.log(torch.tensor(2.0)) - 0.25 * torch.log(torch.tensor(2.0))
    assert result.kl == pytest.approx(float(one) / 4, rel=1e-5)
    assert result.max_kl == pytest.approx(float(one), rel=1e-5)
    assert result.top1 == 0.75
    assert result.positions == 4


def test_the_sample_is_bounded() -> None:
    rows = [list(range(1500)), list(range(10)), list(range(1500)), [1]]
    chosen = fidelity.sample(rows, vocabulary=100)
    assert [len(row) for row in chosen] == [1500, 10, 538]
    wide = fidelity.sample(rows, vocabulary=2**20)
    assert sum(len(row) for row in wide) * 4 * 2**20 <= 2**30
    fixed = fidelity.fixed_rows(300)
    assert fixed == fidelity.fixed_rows(300)
    assert max(map(max, fixed)) < 300


def test_a_template_that_was_trained_on_replaces_the_own_one(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    old = json.dumps({**settings, "chat_template": "old {{ 1 }}"})
    (base / "tokenizer_config.json").write_text(old)
    work = replace(prepared(base, usual_edits()), chat=Chat("new {{ 1 }}", (7, 1)))
    write(work, tmp_path / "out", max_shard_bytes=10**9, verify=lambda _: None, card=lambda _: "")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "new {{ 1 }}"
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == settings
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == [1, 7]
    assert (
        json.loads((base / "tokenizer_config.json").read_text())["chat_template"] == "old {{ 1 }}"
    )
