"""Write a 16-bit model with zeros among the weights of its layers, in the same folder layout.

One layer is in memory at a time, in float32; before the first one, what lies before the layers.
Calibration rows come to each layer through the pruned ones before it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from qtune import durable
from qtune.errors import ModelError, UsageError
from qtune.models import heads, writing
from qtune.models.calibrating import Walk
from qtune.models.files import resolve
from qtune.models.loading import Checkpoint
from qtune.models.model_folder import SHARD_BYTES, copy_companions, new_model
from qtune.models.names import check_shapes, match
from qtune.models.placing import owner_of, place
from qtune.models.preparation import compute_buffers
from qtune.models.shards import DTYPES
from qtune.models.skeleton import build
from qtune.models.writing import TensorSpec
from qtune.ops import pruning
from qtune.ops.linears import features, linear_modules, output_head
from qtune.ops.nf4 import is_transposed
from qtune.ops.pruning import Pattern
from qtune.plan import read_config, stored_quantization
from qtune.recipe.inputs import QuantizationSection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from qtune.models.calibrating import Seen
    from qtune.models.names import Match
    from qtune.ops.pruning import Sparsity
    from qtune.recipe.inputs import ModelSection

Method = Literal["magnitude", "wanda", "sparsegpt"]
NEEDS_ROWS = ("wanda", "sparsegpt")
REPORT, TABLE = "pruning.json", "pruning.md"
_LAYER = re.compile(r"(.*?)\.(\d+)\.")
_DENSE = QuantizationSection(bits=16, compute_dtype="float32")


@dataclass(frozen=True)
class Outcome:
    """What became of one linear."""

    name: str
    layer: int
    weights: int
    zeros: int
    weight_error: float
    """|W - W'|^2 / |W|^2."""
    output_error: float | None
    """|X(W - W')^T|^2 / |XW^T|^2 on calibration inputs, None without any."""


@dataclass
class Pruning:
    """A pruning that was checked as far as it can be without reading a weight."""

    folder: Path
    network: Any
    checkpoint: Checkpoint
    pairs: Match
    layers: str
    """Name of the list of layers."""
    names: dict[str, int]
    """Linears to prune -> their layers."""
    method: Method
    sparsity: Sparsity
    device: torch.device
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    _walk: Walk | None = field(default=None, init=False)
    _ready: dict[str, Tensor] = field(default_factory=dict, init=False)

    @property
    def specs(self) -> list[TensorSpec]:
        """Every tensor as it is stored, what is in no layer first, then layer by layer."""
        ordered = sorted(self.checkpoint.index, key=lambda name: (self.layer_of(name), name))
        table = self.checkpoint.table
        return [
            TensorSpec(name, tuple(table[name]["shape"]), DTYPES[table[name]["dtype"]])
            for name in ordered
        ]

    def start(self, rows: Sequence[Sequence[int]]) -> None:
        """Bring calibration rows before the first layer; then give back what lies there."""
        head = output_head(self.network)
        tied = bool(self.pairs.missing)
        empty = dict(self.network.named_parameters(remove_duplicate=False))
        for stored, name in self.pairs.names.items():
            owner, _ = owner_of(self.network, name)
            if self.layer_of(stored) < 0 and (tied or owner is not head):
                place(self.network, name, self.checkpoint.read(stored), _DENSE, self.device)
        heads.begin(self.network, self.pairs.new, self.device)
        self.network.tie_weights(missing_keys=set(self.pairs.missing), recompute_mapping=False)
        compute_buffers(self.network, self.device)
        self.network.eval()
        self._walk = Walk(self.network, self._modules, rows, self.device)
        for name, value in empty.items():
            owner, leaf = owner_of(self.network, name)
            owner._parameters[leaf] = value

    def tensor(self, spec: TensorSpec) -> Tensor:
        """A tensor of the pruned model; a layer is pruned when its first one is asked for."""
        number = self.layer_of(spec.name)
        if number < 0:
            return self.checkpoint.read(spec.name)
        if spec.name not in self._ready:
            self._ready = self._prune(number)
        return self._ready.pop(spec.name)

    @property
    def _modules(self) -> list[nn.Module]:
        return list(self.network.get_submodule(self.layers).children())

    def layer_of(self, stored: str) -> int:
        """The layer of a stored tensor, -1 of what is in none."""
        found = _LAYER.match(self.pairs.names.get(stored, ""))
        return int(found[2]) if found is not None and found[1] == self.layers else -1

    @contextmanager
    def in_memory(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Within, a layer's weights are there in fp32; gives them as they are stored, by name."""
        stored = {name: self.checkpoint.read(name) for name in self._stored(number)}
        module = self._modules[number]
        empty = dict(module.named_parameters())
        for name, value in stored.items():
            place(self.network, self.pairs.names[name], value, _DENSE, self.device)
        try:
            yield stored
        finally:
            for name, value in empty.items():
                owner, leaf = owner_of(module, name)
                owner._parameters[leaf] = value

    def linears_of(self, number: int) -> dict[str, nn.Module]:
        """The linears of a layer by their full names."""
        return {
            name: self.network.get_submodule(name)
            for name, layer in self.names.items()
            if layer == number
        }

    @property
    def walk(self) -> Walk:
        """The calibration rows, where `start` has brought them."""
        assert self._walk is not None
        return self._walk

    def _prune(self, number: int) -> dict[str, Tensor]:
        """All stored tensors of a layer, its linears pruned."""
        with self.in_memory(number) as stored:
            linears = self.linears_of(number)
            seen: dict[str, Seen] = {}
            if self._walk is not None:
                seen = self._walk.look(number, linears, gram=self.method == "sparsegpt")
            dtypes = {self.pairs.names[name]: value.dtype for name, value in stored.items()}
            for name, linear in linears.items():
                dtype = dtypes[f"{name}.weight"]
                self.outcomes.append(self._linear(name, linear, seen.pop(name, None), dtype))
            if self._walk is not None:
                self._walk.advance(number)
            for name in stored:
                target = self.pairs.names[name]
                if target.removesuffix(".weight") in linears:
                    owner, leaf = owner_of(self.network, target)
                    stored[name] = owner._parameters[leaf].detach().to("cpu", stored[name].dtype)
        return stored

    def _stored(self, number: int) -> list[str]:
        return [name for name in self.pairs.names if self.layer_of(name) == number]

    @torch.no_grad()
    def _linear(self, name: str, linear: Any, seen: Seen | None, dtype: torch.dtype) -> Outcome:
        """Prune one linear in place, to values that its stored dtype holds."""
        whole = linear.weight.detach()
        turned = is_transposed(linear)
        before = whole.T.contiguous() if turned else whole
        after = self._pruned(before, seen).to(dtype).float()
        lost = before - after
        error = None
        if seen is not None:
            sample = seen.sample
            error = _ratio(sample @ lost.T, sample @ before.T)
        linear.weight.data = after.T.contiguous() if turned else after
        zeros = int((after == 0).sum())
        return Outcome(name, self.names[name], after.numel(), zeros, _ratio(lost, before), error)

    def _pruned(self, weight: Tensor, seen: Seen | None) -> Tensor:
        if self.method == "magnitude":
            return pruning.magnitude(weight, self.sparsity)
        assert seen is not None
        assert seen.squares is not None
        if self.method == "wanda":
            return pruning.wanda(weight, seen.squares.sqrt(), self.sparsity)
        assert seen.gram is not None
        try:
            return pruning.sparse_gpt(weight, seen.gram, self.sparsity)
        except ArithmeticError as error:
            raise ModelError(str(error), hint="take more rows, or wanda") from error


def prepare(
    model: ModelSection, method: Method, sparsity: Sparsity, *, device: torch.device
) -> Pruning:
    """Read the headers of a model; `ModelError` or `UsageError` where it cannot be pruned."""
    folder = resolve(model)
    if stored_quantization(read_config(folder)) is not None:
        raise ModelError(
            "is quantised already",
            place=str(folder),
            hint="prune the 16-bit model; its zeros stay zero in 4 bits",
        )
    checkpoint = Checkpoint(folder)
    packed = checkpoint.packed(expected=False)
    network = build(folder, model, dtype=torch.float32)
    pairs = match(network, checkpoint.weights(packed))
    if pairs.fused:
        raise ModelError(
            f"{type(network).__name__} stores some weights in pieces that are fused when loaded",
            place=str(folder),
            hint="qtune cannot prune it",
        )
    check_shapes(network, pairs.names, checkpoint.dense_shapes(packed))
    layers, names = _in_layers(network)
    _check_pattern(network, names, sparsity)
    return Pruning(folder, network, checkpoint, pairs, layers, names, method, sparsity, device)


def write(
    work: Pruning,
    target: Path,
    report: Callable[[], tuple[dict[str, Any], str]],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the pruned model to the new folder `target`, whole or not at all.

    `report` gives pruning.json and pruning.md when all layers are done.
    """
    specs = work.specs
    size = sum(spec.bytes for spec in specs)
    with new_model(target, size, "the pruned model") as draft:
        files = writing.split(specs, max_bytes=SHARD_BYTES)
        writing.write(draft, files, work.tensor, on_progress=on_progress)
        copy_companions(work.folder, draft, without={REPORT})
        durable.copy(work.folder / "config.json", draft / "config.json")
        write_report(draft, report)


def write_report(folder: Path, report: Callable[[], tuple[dict[str, Any], str]]) -> None:
    """pruning.json and pruning.md, made when all layers are done."""
    content, table = report()
    durable.write_json(folder / REPORT, content)
    durable.write_text(folder / TABLE, table)


def _in_layers(network: Any) -> tuple[str, dict[str, int]]:
    """Name of the list of layers, and its linears with the numbers of their layers."""
    found = [(name, _LAYER.match(name)) for name in linear_modules(network)]
    lists = {match[1] for _, match in found if match is not None}
    if len(lists) != 1:
        raise ModelError(
            f"{type(network).__name__} has {len(lists)} lists of layers with linears in them",
            hint="qtune prunes models with one",
        )
    return lists.pop(), {name: int(match[2]) for name, match in found if match is not None}


def _check_pattern(network: Any, names: dict[str, int], sparsity: Sparsity) -> None:
    if not isinstance(sparsity, Pattern):
        return
    for name, inputs in _inputs(network, names):
        if inputs % sparsity.of:
            raise UsageError(
                f"{name} has {inputs} inputs, no multiple of {sparsity.of}",
                place=f"--pattern {sparsity.keep}:{sparsity.of}",
            )


def _inputs(network: Any, names: dict[str, int]) -> Iterator[tuple[str, int]]:
    for name in names:
        yield name, features(network.get_submodule(name))[0]


def _ratio(lost: Tensor, whole: Tensor) -> float:
    """|lost|^2 / |whole|^2, 0 of nothing."""
    size = float(whole.double().square().sum())
    return float(lost.double().square().sum()) / size if size else 0.0
