"""qtune export --to gguf and gguf-lora, from runs and from folders; nothing half, nothing over."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from qtune import methods
from qtune.errors import CheckError, OutputError, UsageError
from qtune.gguf import reading
from qtune.run import gguf as exporting
from qtune.run.display import Quiet
from qtune.run.gguf import Asked, to_gguf
from qtune.run.gguf_lora import to_gguf_lora
from qtune.run.merge import merge
from tests.gguf import workshop
from tests.gguf.straight import Straight
from tests.run.made_run import make_run
from tests.tiny import tiny_llama

IDS = list(range(3, 40))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    model = tiny_llama(vocab_size=352, tie_word_embeddings=True)
    run = make_run(folder, model=model, size=0.02)
    base = folder / "base"
    workshop.byte_level().save_pretrained(base)
    return run


def write(thing: Path, target: Path, **asked: Any) -> dict[str, Any]:
    return to_gguf(str(thing), target, base=None, asked=Asked(**asked), display=Quiet())


@torch.no_grad()
def logits(folder: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found: np.ndarray = model(torch.tensor([IDS])).logits[0].double().numpy()
    return found


def test_a_run_becomes_what_its_merge_is(run: Path, tmp_path: Path) -> None:
    report = write(run, tmp_path / "m.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.Modelfile", "m.gguf", "m.md"]
    assert report["verification"]["kl"] < 1e-10
    assert report["verification"]["rows"] == "the held-out rows"
    assert report["tokenizer"] == {"model": "gpt2", "pre": "gpt-2", "spelled": 5}
    merge(str(run), tmp_path / "merged", display=Quiet())
    wanted = logits(tmp_path / "merged")
    assert np.abs(Straight(tmp_path / "m.gguf").logits(IDS) - wanted).max() < 1e-4
    assert "output.weight" not in reading.File(tmp_path / "m.gguf").names
    assert "FROM ./m.gguf" in (tmp_path / "m.Modelfile").read_text()
    again = write(tmp_path / "merged", tmp_path / "again", dtype="q8_0")
    assert again["dtype"] == "q8_0"
    assert 0 < again["verification"]["kl"] < 1e-2
    names = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert names == ["Modelfile", "README.md", "model.gguf"]
    assert "library_name: gguf" in (tmp_path / "again" / "README.md").read_text()


def test_its_lora_on_its_base_is_the_same_model(run: Path, tmp_path: Path) -> None:
    base = run.parent / "base"
    write(base, tmp_path / "base.gguf", verify=False)
    report = to_gguf_lora(
        str(run), tmp_path / "lora.gguf", base=None, asked=Asked(), display=Quiet()
    )
    assert (report["alpha"], report["ranks"]) == (8.0, [4])
    assert report["verification"]["kl"] < 1e-8
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).requires_grad_(False)
    methods.read(run / "adapter").attach(model, base_fingerprint=None)
    with torch.no_grad():
        wanted = model(torch.tensor([IDS])).logits[0].double().numpy()
    found = Straight(tmp_path / "base.gguf", tmp_path / "lora.gguf").logits(IDS)
    assert np.abs(found - wanted).max() < 1e-4
    assert np.abs(found - Straight(tmp_path / "base.gguf").logits(IDS)).max() > 1e-2
    text = (tmp_path / "lora.Modelfile").read_text()
    assert "ADAPTER ./lora.gguf" in text
    with pytest.raises(UsageError, match="f32, f16 or bf16"):
        to_gguf_lora(
            str(run), tmp_path / "b.gguf", base=None, asked=Asked(dtype="q8_0"), display=Quiet()
        )


@pytest.mark.parametrize(
    ("method", "rank", "ranks"),
    [
        ({"name": "dylora", "rank": 6, "min_rank": 2, "alpha": 8.0}, 3, [3]),
        ({"name": "delta_lora", "rank": 2, "alpha": 8.0}, None, [4]),
    ],
)
def test_other_methods_that_are_a_lora(
    method: dict[str, Any], rank: int | None, ranks: list[int], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "made", method=method)
    asked = Asked(rank=rank)
    report = to_gguf_lora(str(run), tmp_path / "l", base=None, asked=asked, display=Quiet())
    assert report["ranks"] == ranks
    assert report["verification"]["kl"] < 1e-8


def test_nothing_is_overwritten_and_nothing_half_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = run.parent / "base"
    (tmp_path / "m.Modelfile").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write(base, tmp_path / "m.gguf")
    monkeypatch.setitem(exporting.MAX_KL, "bf16", 1e-12)
    with pytest.raises(CheckError, match="the file is not the model") as caught:
        write(base, tmp_path / "n.gguf", dtype="bf16")
    assert caught.value.code == 9
    assert [path.name for path in tmp_path.iterdir()] == ["m.Modelfile"]


def test_a_missing_package_is_told_with_its_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "gguf":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'qtune\[gguf\]'"):
        write(run, tmp_path / "m.gguf")
