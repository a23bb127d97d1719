"""The whole road of a classification: train, evaluate, resume, merge, and the files in other hands.

The references are plain transformers and PEFT.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

from qtune.errors import ExitCode, UsageError
from qtune.run.data import Choice, preview
from qtune.run.display import Quiet
from qtune.run.dry import dry_run
from qtune.run.eval import evaluate
from qtune.run.generate import Speaker
from qtune.run.merge import merge
from qtune.run.plan import plan
from qtune.run.subject import load, resolve
from qtune.run.train import train
from tests import tiny
from tests.tiny import tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SIZES = tiny.SIZES | {
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "cls_token_id": 0,
    "sep_token_id": 1,
    "initializer_range": 0.2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"pad_token_id": 2, "hidden_dropout_prob": 0.0},
    "modernbert": {"pad_token_id": 2},
    "llama": {"pad_token_id": None},
}
TEXTS = ("it was {}", "a {} film", "the day was {}, they say", "{}", "so {}!")
WORDS = {"good": ("fine", "lovely", "good"), "bad": ("awful", "bad"), "odd": ("odd",)}


def made(folder: Path, family: str, **sections: Any) -> Path:
    """A random base without a head, rows of three labels, and a recipe."""
    config = CONFIG_MAPPING[family](**{**SIZES, **FAMILIES[family]})
    torch.manual_seed(0)
    encoder = AutoModelForSequenceClassification.from_config(config).base_model
    encoder.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    rows = [
        {"text": text.format(word), "label": label}
        for text in TEXTS
        for label, words in WORDS.items()
        for word in words
    ]
    for name, chosen in {"train": rows, "test": rows[::3]}.items():
        lines = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / f"{name}.jsonl").write_text(lines)
    settings: dict[str, Any] = {
        "task": "classification",
        "model": {"name_or_path": "./base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "rank": 4, "dropout": 0.0},
        "data": {
            "train": [{"path": "./train.jsonl"}],
            "eval": [{"path": "./test.jsonl"}],
            "max_length": 48,
            "cache_dir": str(folder / "cache"),
        },
        "optim": {"learning_rate": 1e-2},
        "train": {"max_steps": 4, "batch_size": 10, "output_dir": str(folder / "run")},
        "checkpoint": {"metric": "accuracy", "final": "last"},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings | sections))
    return recipe


def batch(pad_id: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row, size in enumerate((12, 7, 3)):
        ids[row, size:], mask[row, size:] = pad_id, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trained_model_is_the_same_in_other_hands(tmp_path: Path, family: str) -> None:
    report, code = train(made(tmp_path, family), display=Quiet())
    assert code == ExitCode.DONE
    assert report["supervised_tokens"] == 40  # four steps of ten rows, one label each
    assert {"accuracy", "macro_f1", "matthews", "loss"} <= report["evaluations"][-1].keys()
    run = tmp_path / "run"
    ours = load(resolve(str(run)), device=torch.device("cpu"))
    inputs = batch(ours.base.model.config.pad_token_id)
    measured = evaluate(str(run), display=Quiet())
    assert measured["adapter"]["labels"] == ["bad", "good", "odd"]
    result = merge(str(run), tmp_path / "merged", display=Quiet())
    assert result["verification"]["kl"] < 1e-9
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert plain.config.id2label == {0: "bad", 1: "good", 2: "odd"}
    with torch.no_grad():
        expected = ours.base.model(**inputs).logits
        torch.testing.assert_close(plain(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    again = evaluate(str(tmp_path / "merged"), str(tmp_path / "test.jsonl"), display=Quiet())
    assert again["model"]["accuracy"] == measured["adapter"]["accuracy"]
    assert again["model"]["confusion"] == measured["adapter"]["confusion"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_computes_the_same_from_the_adapter(tmp_path: Path) -> None:
    sections = {"quantization": {"bits": 16, "compute_dtype": "float32"}}
    train(made(tmp_path, "bert", **sections), display=Quiet())
    ours = load(resolve(str(tmp_path / "run" / "adapter")), device=torch.device("cpu"))
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    theirs = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    assert theirs.peft_config["default"].task_type == "SEQ_CLS"
    inputs = batch(2)
    with torch.no_grad():
        expected = theirs(**inputs).logits
        torch.testing.assert_close(ours.base.model(**inputs).logits, expected)


def test_a_resumed_run_is_the_straight_one(tmp_path: Path) -> None:
    from qtune.run.resume import Wanted

    recipe = made(tmp_path, "llama")
    whole = ["train.max_steps=4", f"train.output_dir={tmp_path / 'whole'}"]
    straight, _ = train(recipe, overrides=whole, display=Quiet())
    train(recipe, overrides=["train.max_steps=2"], display=Quiet())
    wanted = Wanted(allowed=True, required=True)
    resumed, _ = train(recipe, wanted=wanted, display=Quiet())
    assert resumed["loss_last"] == straight["loss_last"]
    assert resumed["evaluations"][-1]["loss"] == straight["evaluations"][-1]["loss"]


def test_what_comes_before_the_weights(tmp_path: Path) -> None:
    recipe = made(tmp_path, "bert")
    planned = plan(recipe).plan
    report = dry_run(recipe, display=Quiet())
    assert report["plan"]["trainable_parameters"] == planned.trainable_parameters
    shown = preview(recipe, Choice(count=1), display=Quiet()).rows[0]
    assert [piece.text for piece in shown.pieces if piece.learnt] == [" good"]
    assert "".join(piece.text for piece in shown.pieces if not piece.learnt) == "it was fine"
    with pytest.raises(UsageError, match="65 tokens, bert has 64 positions"):
        plan(recipe, overrides=["data.max_length=65"])


def test_a_classifier_does_not_chat(tmp_path: Path) -> None:
    train(made(tmp_path, "llama"), overrides=["train.max_steps=1"], display=Quiet())
    with pytest.raises(UsageError, match="is a classifier, and writes no text"):
        Speaker(str(tmp_path / "run"), display=Quiet())
