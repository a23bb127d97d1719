"""A streamed base gives the bits of a resident one, in two slots, or an error."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune import methods, models
from qtune.errors import ModelError, ResourceError, UsageError
from qtune.methods import create
from qtune.models import quantizing, streaming
from qtune.models.layer_slots import Slots
from qtune.models.prequantized import Packed
from qtune.models.streaming import layers_of
from qtune.ops.nf4 import bits_of, weight_of
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import BitfitConfig, BottleneckConfig, LoraConfig, PromptConfig
from tests import tiny
from tests.models.workshop import edit_tensors
from tests.tiny import save_tiny, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtune.models import Base
    from qtune.recipe.steps import ActivationPolicy
    from qtune.recipe.steps import Base as Placement

LAYERS = 4
CPU = torch.device("cpu")
SIZES = tiny.SIZES | {"intermediate_size": 192, "num_hidden_layers": LAYERS}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 16},
    "gpt_neox": {},
    "phi3": {"pad_token_id": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and a copy of each family: `<family>` and `<family>-nf4`."""
    folder = tmp_path_factory.mktemp("streaming")
    for family, changes in FAMILIES.items():
        torch.manual_seed(3)
        config = AutoConfig.for_model(family, **(SIZES | changes))
        network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        save_tiny(folder / family, network.bfloat16())
        _copy(folder / family, folder / f"{family}-nf4")
    return folder


def _copy(source: Path, target: Path, **quantization: Any) -> Path:
    section = QuantizationSection(**quantization)
    model = ModelSection(name_or_path=str(source), attn_implementation="eager")
    quantizing.write(quantizing.prepare(model, section), target, source="source")
    return target


def _load(
    folder: Path,
    base: Placement,
    *,
    activations: ActivationPolicy = "none",
    device: torch.device = CPU,
    **quantization: Any,
) -> Base:
    return models.load(
        ModelSection(name_or_path=str(folder), attn_implementation="eager"),
        QuantizationSection(**quantization),
        device=device,
        activations=activations,
        base=base,
    )


METHODS = {
    "lora": LoraConfig(rank=4, alpha=8.0, dropout=0.2),
    "dora": LoraConfig(rank=4, alpha=8.0, dropout=0.0, use_dora=True),
    "bitfit": BitfitConfig(),
    "bottleneck": BottleneckConfig(width=8),
    "prompt": PromptConfig(num_virtual_tokens=4),
}


def _learner(base: Base, method: str = "lora") -> methods.Method:
    attached = create(METHODS[method], seed=0)
    attached.attach(base.model, tokenizer=tiny_tokenizer())
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in attached.parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw).to(parameter.device))
    return attached


def _train(base: Base, method: methods.Method, *, steps: int) -> list[torch.Tensor]:
    """Every loss and gradient of some steps with an evaluation between them, and the weights."""
    parameters = list(method.parameters().values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    device = base.model.device
    seen = []
    for step in range(steps):
        torch.manual_seed(step)
        ids = torch.randint(3, 300, (2, 16), generator=torch.Generator().manual_seed(step))
        base.model.train()
        loss = base.model(input_ids=ids.to(device), labels=ids.to(device)).loss
        loss.backward()
        seen += [loss.detach(), *(p.grad.clone() for p in parameters if p.grad is not None)]
        optimizer.step()
        optimizer.zero_grad()
        base.model.eval()
        with torch.no_grad():
            seen.append(base.model(input_ids=ids.to(device)).logits)
    return [*seen, *(parameter.detach().clone() for parameter in parameters)]


def _differ(left: list[torch.Tensor], right: list[torch.Tensor]) -> list[int]:
    assert len(left) == len(right) > 0
    pairs = zip(left, right, strict=True)
    return [place for place, (a, b) in enumerate(pairs) if not torch.equal(a, b)]


def _equal_runs(copy: Path, method: str = "lora", *, steps: int = 1, **settings: Any) -> None:
    runs = []
    for place in ("resident", "stream"):
        base = _load(copy, place, **settings)
        runs.append(_train(base, _learner(base, method), steps=steps))
    assert _differ(*runs) == []
    assert base.streamed is not None
    assert sum(base.streamed.slots.moves) >= 2 * steps * LAYERS  # layers did come and go


def test_a_cpu_with_a_number_is_the_same(folder: Path) -> None:
    """Under several processes accelerate calls it cpu:0, and `to` copies what is no view then."""
    ids = torch.arange(3, 23)[None]
    seen = []
    for device in (CPU, torch.device("cpu:0")):
        base = _load(folder / "llama-nf4", "stream", device=device)
        with torch.no_grad():
            seen.append(base.model.eval()(input_ids=ids).logits)
    assert torch.equal(*seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_training_has_the_bits_of_resident(folder: Path, family: str) -> None:
    _equal_runs(folder / f"{family}-nf4", steps=5 if family == "llama" else 1)


@pytest.mark.parametrize("policy", ["selective", "layer", "offload"])
def test_so_it_is_under_every_activation_policy(folder: Path, policy: ActivationPolicy) -> None:
    _equal_runs(folder / "llama-nf4", steps=2, activations=policy)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "lora"])
def test_so_it_is_for_every_method(folder: Path, method: str) -> None:
    _equal_runs(folder / "qwen3-nf4", method)


@pytest.mark.parametrize(
    "quantization",
    [{"quant_type": "fp4"}, {"double_quant": False}, {"compute_dtype": "float32"}],
)
def test_so_it_is_for_every_way_of_quantising(
    folder: Path, tmp_path: Path, quantization: dict[str, Any]
) -> None:
    _equal_runs(_copy(folder / "llama", tmp_path / "copy", **quantization), **quantization)


def test_a_layer_may_lie_in_several_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizing, "SHARD_BYTES", 10_000)  # a layer has 28 kB
    copy = _copy(folder / "llama", tmp_path / "copy")
    assert len(list(copy.glob("*.safetensors"))) > 10
    _equal_runs(copy)


def test_generation_is_that_of_the_resident_base(folder: Path) -> None:
    ids = torch.tensor([[5, 6, 7]])
    texts = []
    for place in ("resident", "stream"):
        model = _load(folder / "llama-nf4", place).model.eval()
        texts.append(model.generate(ids, max_new_tokens=5, do_sample=False).tolist())
    assert texts[0] == texts[1]


def test_two_layers_at_a_time_are_held_and_any_can_be_asked_for(folder: Path) -> None:
    resident = _load(folder / "llama-nf4", "resident")
    base = _load(folder / "llama-nf4", "stream")
    assert base.inventory == resident.inventory
    places = set()
    for name, module in reversed(list(base.model.named_modules())):
        if bits_of(module) == 4:
            assert torch.equal(weight_of(module), weight_of(resident.model.get_submodule(name)))
            places.add(module.weight.untyped_storage().data_ptr())
    assert len(places) == 2
    assert base.streamed is not None
    assert base.streamed.slot_bytes < 0.6 * base.inventory.row("4-bit").bytes


def test_the_next_layer_is_sent_for_and_none_twice(folder: Path) -> None:
    base = _load(folder / "llama-nf4", "stream")
    method = _learner(base)
    assert base.streamed is not None
    slots, ids = base.streamed.slots, torch.arange(3, 19)[None]
    moves = []
    for _ in range(3):
        before = sum(slots.moves)
        base.model(input_ids=ids, labels=ids).loss.backward()
        moves.append(sum(slots.moves) - before)
    # forward all but the two that the last backward left, backward all but the forward's last two
    assert moves == [2 * LAYERS - 2, 2 * LAYERS - 4, 2 * LAYERS - 4]
    assert method.parameters()


class _Asked:
    """A source that notes what was asked of it, and arrives or fails."""

    def __init__(self, broken: int | None = None) -> None:
        self.asked: list[int] = []
        self.broken = broken

    def start(self, layer: int, slot: torch.Tensor) -> Any:
        self.asked.append(layer)
        slot.fill_(layer)
        return self._fail if layer == self.broken else int

    def _fail(self) -> None:
        raise ResourceError("broken")


def _slots(source: _Asked, layers: int) -> tuple[Slots, list[torch.Tensor]]:
    buffers = [torch.zeros(1), torch.zeros(1)]
    return Slots(source, buffers, layers=layers), buffers


@pytest.mark.parametrize("layers", [2, 3, 4, 7])
def test_whatever_is_asked_for_is_there(layers: int) -> None:
    source = _Asked()
    slots, buffers = _slots(source, layers)
    draw = torch.Generator().manual_seed(layers)
    for layer in torch.randint(0, layers, (200,), generator=draw).tolist():
        slots.require(layer)
        assert buffers[layer % 2].item() == layer


def test_a_pass_that_begins_anew_is_foreseen_the_second_time() -> None:
    source = _Asked()
    slots, _ = _slots(source, 4)
    for layer in [0, 1, 2, 3, 0, 1, 2]:
        slots.require(layer)
    source.asked.clear()
    slots.require(3)
    assert source.asked == [0]


def test_after_a_failure_nothing_is_taken_for_granted() -> None:
    source = _Asked(broken=2)
    slots, buffers = _slots(source, 4)
    slots.require(0)
    with pytest.raises(ResourceError):
        slots.require(2)  # it was on its way to the slot of layer 0
    slots.require(0)
    assert buffers[0].item() == 0


def _forward_after(change: Callable[[], object], base: Base) -> None:
    ids = torch.arange(3, 19)[None]
    base.model(input_ids=ids)
    change()
    base.model(input_ids=ids)


def _weights(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    os.utime(path, (1, 1))
    return path


def test_a_file_that_is_cut_while_in_use_is_told(folder: Path, tmp_path: Path) -> None:
    path = _weights(tmp_path / "copy", folder / "llama-nf4")
    base = _load(path.parent, "stream")
    with pytest.raises(ModelError, match="changed while they were in use") as caught:
        _forward_after(lambda: os.truncate(path, 4096), base)
    assert caught.value.faults[0].place == str(path)


def test_a_file_that_is_written_to_while_in_use_is_told(folder: Path, tmp_path: Path) -> None:
    path = _weights(tmp_path / "copy", folder / "llama-nf4")
    base = _load(path.parent, "stream")

    def change() -> None:
        with path.open("r+b") as file:
            file.seek(-2000, os.SEEK_END)
            file.write(b"garbage")

    with pytest.raises(ModelError, match="it was written to"):
        _forward_after(change, base)


def test_a_file_that_is_replaced_is_still_read_as_it_was(folder: Path, tmp_path: Path) -> None:
    path = _weights(tmp_path / "copy", folder / "llama-nf4")
    base = _load(path.parent, "stream")
    ids = torch.arange(3, 19)[None]
    before = base.model(input_ids=ids).logits
    path.unlink()
    path.write_bytes(b"another")
    assert torch.equal(base.model(input_ids=ids).logits, before)


def test_a_disk_that_fails_in_the_backward_pass_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = _load(folder / "llama-nf4", "stream")
    _learner(base)
    ids = torch.arange(3, 19)[None]
    loss = base.model(input_ids=ids, labels=ids).loss

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ResourceError, match="cannot be read: Input/output error") as caught:
        loss.backward()
    assert caught.value.faults[0].place == str(folder / "llama-nf4" / "model.safetensors")


def test_what_cannot_be_streamed_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="no 4-bit copy"):
        _load(folder / "llama", "stream")
    with pytest.raises(UsageError, match="only a 4-bit base") as caught:
        _load(folder / "llama", "stream", bits=16)
    assert caught.value.faults[0].place == "memory.base"


def test_layers_are_numbered_as_they_compute() -> None:
    names = sorted(f"model.layers.{number}.mlp.{name}" for number in range(12) for name in "ab")
    packed = Packed({name: {} for name in (*names, "lm_head.weight")})
    targets = {name: name for name in ("lm_head.weight", "other", *names)}
    layers = layers_of(packed, targets, bits=4, place="model")
    assert [next(iter(layer)).split(".")[2] for layer in layers] == [str(n) for n in range(12)]
    assert all(len(layer) == 2 for layer in layers)


def test_a_broken_constant_is_found_before_anything_computes(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder / "llama", tmp_path / "copy", double_quant=False)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight.absmax"][3] = float("nan")

    edit_tensors(copy, spoil)
    with pytest.raises(ModelError, match=r"up_proj.weight \(absmax\) holds nan"):
        _load(copy, "stream", double_quant=False)


def test_there_is_no_state_dict_of_slots(folder: Path) -> None:
    with pytest.raises(ModelError, match="no state dict"):
        _load(folder / "llama-nf4", "stream").model.state_dict()


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("policy", ["none", "selective", "layer", "offload"])
def test_so_it_is_on_a_gpu(
    folder: Path, policy: ActivationPolicy, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pinned:
        monkeypatch.setattr(streaming, "HOST_SHARE", 0.0)
    device = torch.device("cuda")
    runs = []
    for place in ("resident", "stream"):
        base = _load(folder / "llama-nf4", place, activations=policy, device=device)
        runs.append(_train(base, _learner(base), steps=5))
    assert _differ(*runs) == []
