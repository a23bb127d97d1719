"""What a method trains: every tensor by size, so that the plan can count it before it exists.

LoRA on a linear [n, m] at rank r: A [r, m] and B [n, r], r(n + m) parameters; DoRA adds the n
row norms. Bias tuning: n a linear. Prompt tuning: tokens x hidden; prefix
tuning: tokens x 2 x the width of the keys, a layer. Bottlenecks of width r on hidden
size d: 2 r d + r + d a site. Quantum-PEFT: see `quantum`.
RoSA adds floor(density n m) values to a LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.plan.clashes import refuse_clashes
from qtune.plan.quantum import generators, refuse_rank
from qtune.plan.selective import modules_of, places_of, selected
from qtune.plan.sites import bottleneck_places, sites_of
from qtune.plan.sparse import place_count
from qtune.plan.targets import (
    find_modules,
    is_within,
    lookup,
    refuse_unused_patterns,
    select_targets,
)
from qtune.recipe.methods import (
    AdaloraConfig,
    BitfitConfig,
    BottleneckConfig,
    BridgeConfig,
    CombinationConfig,
    LongLoraConfig,
    LoraConfig,
    LoraFaConfig,
    LowRankConfig,
    MethodConfig,
    PrefixConfig,
    PromptConfig,
    PTuningConfig,
    QuantumConfig,
    RosaConfig,
    SelectiveConfig,
    SingleMethod,
    SoftPromptConfig,
    TargetsConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qtune.plan.shape import LinearShape, ModelShape

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
LOW_RANK, SPARSE = "low-rank matrices", "sparse values"


@dataclass(frozen=True)
class TrainableTensor:
    """One trained parameter: its part of the adapter, the module it sits on, its elements."""

    part: str
    module: str
    elements: int
    bytes_each: int

    @property
    def size(self) -> int:
        """Bytes of the parameter; its gradient takes the same."""
        return self.elements * self.bytes_each


@dataclass(frozen=True)
class AdaptedLinear:
    """A linear that carries a low-rank adapter."""

    linear: LinearShape
    rank: int


def adapted_linears(method: MethodConfig | LowRankConfig, shape: ModelShape) -> list[AdaptedLinear]:
    """The linears that carry a low-rank adapter, with their ranks; none for other methods."""
    if isinstance(method, CombinationConfig):
        return [each for part in method.parts for each in adapted_linears(part, shape)]
    if not isinstance(method, LowRankConfig):
        return []
    linears = targeted_linears(method, shape)
    for key in ("rank_pattern", "alpha_pattern"):
        names = [linear.name for linear in linears]
        refuse_unused_patterns(getattr(method, key), names, key=f"method.{key}")
    return [
        AdaptedLinear(linear, lookup(method.rank_pattern, linear.name, method.rank))
        for linear in linears
    ]


def targeted_linears(method: TargetsConfig, shape: ModelShape) -> list[LinearShape]:
    """The linears the recipe's filters leave; a module trained whole carries no adapter."""
    linears = {linear.name: linear for linear in shape.linears}
    names = select_targets(
        list(linears),
        target_modules=method.target_modules,
        exclude_modules=method.exclude_modules,
        layers_to_transform=method.layers_to_transform,
    )
    whole = saved_modules(method, shape) if isinstance(method, LowRankConfig) else []
    return [linears[name] for name in names if not any(is_within(name, each) for each in whole)]


def saved_modules(method: LowRankConfig, shape: ModelShape) -> list[str]:
    """Full names of the modules trained whole; `UsageError` for an entry that means none."""
    key = "method.modules_to_save"
    wanted = [*method.modules_to_save, *shape.class_heads]
    if isinstance(method, LongLoraConfig):
        wanted += modules_of(method, places_of(shape))
    return find_modules(_modules(shape), wanted, key=key, kind="module") if wanted else []


def trainable_tensors(method: MethodConfig, shape: ModelShape) -> list[TrainableTensor]:
    """Every tensor the method trains, in module order."""
    if isinstance(method, CombinationConfig):
        _refuse_clashes(method, shape)
        return [each for part in method.parts for each in trainable_tensors(part, shape)]
    make = next(make for kind, make in _MAKERS.items() if isinstance(method, kind))
    return list(make(method, shape))


def _refuse_clashes(method: CombinationConfig, shape: ModelShape) -> None:
    whole = [_whole(part, shape) for part in method.parts]
    refuse_clashes(method.parts, whole, [_adapted_modules(part, shape) for part in method.parts])


def _whole(part: SingleMethod, shape: ModelShape) -> list[str]:
    if isinstance(part, SelectiveConfig):
        return list(dict.fromkeys(place.module for place in selected(part, places_of(shape))))
    return saved_modules(part, shape) if isinstance(part, LowRankConfig) else []


def _adapted_modules(part: SingleMethod, shape: ModelShape) -> list[str]:
    if isinstance(part, SoftPromptConfig | PrefixConfig | SelectiveConfig):
        return []
    if isinstance(part, BottleneckConfig):
        return [tensor.module for tensor in _bottlenecks(part, shape)]
    return [linear.name for linear in targeted_linears(part, shape)]


def trainable_parameters(method: MethodConfig, shape: ModelShape) -> int:
    """Number of trained parameters."""
    return sum(tensor.elements for tensor in trainable_tensors(method, shape))


def whereabouts(method: MethodConfig, shape: ModelShape) -> str:
    """Where in the model a method trains, in words."""
    if isinstance(method, CombinationConfig):
        return "; ".join(f"{part.name} {whereabouts(part, shape)}" for part in method.parts)
    if isinstance(method, BridgeConfig):
        return f"{len(shape.bridged)} tensors of PEFT's {method.type}"
    if isinstance(method, SelectiveConfig):
        chosen = selected(method, places_of(shape))
        return f"{len(chosen)} tensors of {' and '.join(dict.fromkeys(p.part for p in chosen))}"
    if isinstance(method, SoftPromptConfig):
        return f"{method.num_virtual_tokens} learned positions before each row"
    if isinstance(method, PrefixConfig):
        return (
            f"{method.num_virtual_tokens} learned keys and values in each of {shape.layers} layers"
        )
    if isinstance(method, BottleneckConfig):
        modules = dict.fromkeys(tensor.module for tensor in _bottlenecks(method, shape))
        return f"{method.placement}, at {len(modules)} places of {shape.layers} layers"
    return f"on {len(targeted_linears(method, shape))} of {len(shape.linears)} linears"


def _low_rank(method: LowRankConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    yield from _lora(method, shape)
    yield from _whole_modules(method, shape)


def _bridged(method: BridgeConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    for tensor in shape.bridged:
        part = f"{method.type} of PEFT"
        yield TrainableTensor(part, tensor.module, tensor.parameters, 4)


def _delta_biases(method: BitfitConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    for linear in targeted_linears(method, shape):
        yield TrainableTensor("delta-biases", linear.name, linear.out_features, 4)


def _prefixes(method: PrefixConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    each = 2 * method.num_virtual_tokens * shape.key_value_heads * shape.head_dim
    for _ in range(shape.layers):
        yield TrainableTensor("prefixes", "", each, 4)


def _selected(method: SelectiveConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    for place in selected(method, places_of(shape)):
        yield TrainableTensor(f"trained {place.part}s", place.module, place.size, 4)


def _prompt(method: PromptConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    yield TrainableTensor("prompt", "", method.num_virtual_tokens * shape.hidden_size, 4)


def _lora(method: LowRankConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    each = DTYPE_BYTES[method.dtype]
    for adapted in adapted_linears(method, shape):
        linear, rank = adapted.linear, adapted.rank
        if not isinstance(method, LoraFaConfig):  # whose A stays as it was drawn
            yield TrainableTensor(LOW_RANK, linear.name, rank * linear.in_features, each)
        yield TrainableTensor(LOW_RANK, linear.name, linear.out_features * rank, each)
        if isinstance(method, LoraConfig) and method.use_dora:
            yield TrainableTensor("DoRA magnitudes", linear.name, linear.out_features, each)
        if isinstance(method, RosaConfig):
            count = place_count(method, linear.out_features, linear.in_features)
            yield TrainableTensor(SPARSE, linear.name, count, each)


def _triplets(method: AdaloraConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    each, rank = DTYPE_BYTES[method.dtype], method.rank
    for linear in targeted_linears(method, shape):
        for elements in (rank * linear.in_features, linear.out_features * rank, rank):
            yield TrainableTensor("low-rank triplets", linear.name, elements, each)


def _generators(method: QuantumConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    for linear in targeted_linears(method, shape):
        for size in (linear.out_features, linear.in_features):
            refuse_rank(method, size)
            yield TrainableTensor("generators", linear.name, generators(method, size), 4)
        yield TrainableTensor("generators", linear.name, method.rank, 4)


def _prompt_encoder(method: PTuningConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    """The virtual tokens, and the layers that they go through."""
    hidden = shape.hidden_size
    width = method.encoder_width or hidden
    yield TrainableTensor("prompt encoder", "", method.num_virtual_tokens * hidden, 4)
    if method.encoder == "mlp":
        sizes = [(hidden, width), (width, width), (width, hidden)]
    else:  # four gates, two directions, two layers
        for inputs in (hidden, 2 * width):
            each = 4 * width * (inputs + width + 2)
            yield TrainableTensor("prompt encoder", "", 2 * each, 4)
        sizes = [(2 * width, 2 * width), (2 * width, hidden)]
    for inputs, outputs in sizes:
        yield TrainableTensor("prompt encoder", "", (inputs + 1) * outputs, 4)


def _bottlenecks(method: BottleneckConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    hidden, width = shape.hidden_size, method.width
    outputs = {linear.name: linear.out_features for linear in shape.linears}
    for module in bottleneck_places(method, sites_of(outputs, hidden_size=hidden)):
        for elements in (width * hidden, width, hidden * width, hidden):
            yield TrainableTensor("bottlenecks", module, elements, 4)


def _whole_modules(method: LowRankConfig, shape: ModelShape) -> Iterator[TrainableTensor]:
    """Copies of whole modules; a tied head or embedding counts as its own once it is trained."""
    whole = saved_modules(method, shape)
    for owner, elements in _parameters(shape):
        for module in whole:
            if is_within(owner, module):
                each = 4 if module in shape.class_heads else DTYPE_BYTES[method.dtype]
                yield TrainableTensor("modules trained whole", owner, elements, each)


def _parameters(shape: ModelShape) -> Iterator[tuple[str, int]]:
    """(module, elements) of every parameter."""
    for linear in (*shape.linears, shape.head):
        yield linear.name, linear.weights
        if linear.bias:
            yield linear.name, linear.biases
    for tensor in shape.other:
        yield tensor.module, tensor.parameters


def _modules(shape: ModelShape) -> list[str]:
    """Every module that holds parameters, and every module around those."""
    found: dict[str, None] = {}
    for owner, _ in _parameters(shape):
        parts = owner.split(".")
        found.update(dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1)))
    return list(found)


_MAKERS: dict[type, Callable[[Any, ModelShape], Iterator[TrainableTensor]]] = {
    AdaloraConfig: _triplets,
    BitfitConfig: _delta_biases,
    BottleneckConfig: _bottlenecks,
    BridgeConfig: _bridged,
    LowRankConfig: _low_rank,
    PrefixConfig: _prefixes,
    PromptConfig: _prompt,
    PTuningConfig: _prompt_encoder,
    QuantumConfig: _generators,
    SelectiveConfig: _selected,
}
"""What each kind of method trains."""
