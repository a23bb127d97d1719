"""The method section: `method.name` picks the keys that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from qtune.recipe.peft_types import PeftType, known_type
from qtune.recipe.section import Indices, Names, Real, Regex, Section

Targets = Literal["all-linear"] | Names | Regex


class TargetsConfig(Section):
    """Keys of every method that works on chosen linear layers."""

    name: str
    """The method."""
    target_modules: Targets = "all-linear"
    """all-linear, a list of module names or suffixes, or a regular expression (full match)."""
    exclude_modules: Names = ()
    """Module names or suffixes to leave out."""
    layers_to_transform: Indices = ()
    """Only these layers; empty means all."""


class LowRankConfig(TargetsConfig):
    """Keys of every method that learns a product of two small matrices beside a weight."""

    rank: int = Field(default=64, ge=1)
    """Rank of the update."""
    alpha: Annotated[Real, Field(gt=0.0)] = 16.0
    """Scale: alpha/rank, or alpha/sqrt(rank) with use_rslora."""
    dropout: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout on the adapter's input."""
    use_rslora: bool = False
    """Rank-stabilised scale (Kalajdzievski 2023)."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Other ranks by module name, suffix or regular expression."""
    alpha_pattern: dict[str, Annotated[Real, Field(gt=0.0)]] = {}
    """Other alphas by module name, suffix or regular expression."""
    modules_to_save: Names = ()
    """Modules trained whole (a copy in dtype), such as lm_head or embed_tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the adapter weights."""

    def plain(self) -> LoraConfig:
        """The LoRA that an adapter file of this method is."""
        shared = LowRankConfig.model_fields.keys() - {"name"}
        return LoraConfig(**{key: getattr(self, key) for key in shared})


class LoraConfig(LowRankConfig):
    """Low-rank adapters (Hu et al. 2021), with rsLoRA, DoRA and LoRA+."""

    name: Literal["lora"] = "lora"
    use_dora: bool = False
    """Weight-decomposed: learn the row norms apart (Liu et al. 2024)."""
    loraplus_ratio: Annotated[Real, Field(ge=1.0)] | None = None
    """LoRA+ (Hayou et al. 2024): learning rate of B over that of A."""

    def plain(self) -> LoraConfig:
        """Itself."""
        return self


class LongLoraConfig(LowRankConfig):
    """LongLoRA (Chen et al. 2023): longer rows by attention in shifted groups while training."""

    name: Literal["long_lora"] = "long_lora"
    group_share: Annotated[Real, Field(gt=0.0, le=1.0)] = 0.25
    """Share of data.max_length that a token sees while training; evaluation sees all."""
    rope_factor: Annotated[Real, Field(ge=1.0)] | None = None
    """Positions are divided by it: the new length over the old, rounded up."""
    train_norms: bool = True
    """Train every norm whole."""
    train_embeddings: bool = True
    """Train the input embeddings whole."""


class LoraFaConfig(LowRankConfig):
    """LoRA-FA (Zhang et al. 2023): A stays as it was drawn, B alone learns."""

    name: Literal["lora_fa"] = "lora_fa"


class DyloraConfig(LowRankConfig):
    """DyLoRA (Valipour et al. 2022): one run trains every rank up to `rank`."""

    name: Literal["dylora"] = "dylora"
    min_rank: int = Field(default=1, ge=1)
    """The smallest rank that is drawn."""
    freeze_lower: bool = False
    """Train only the drawn rank's own row and column; those below it stay."""


class DeltaLoraConfig(LowRankConfig):
    """Delta-LoRA (Zi et al. 2023): the weight moves with its adapter; without dropout."""

    name: Literal["delta_lora"] = "delta_lora"
    if not TYPE_CHECKING:
        dropout: ClassVar[float] = 0.0  # no key: W's gradient must be that of B A
    delta_ratio: Annotated[Real, Field(gt=0.0)] = 2.0
    """How far the weight moves, over the adapter's own change."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps of the adapter alone, before the weight moves, too; without it a tenth of all, 500 at
    most."""
    form: Literal["virtual", "in_place"] = "virtual"
    """Compute the weight's change beside it, or fold it into a dense copy (16-bit bases only)."""


class RosaConfig(LowRankConfig):
    """RoSA (Nikdan et al. 2024): low-rank adapters and a sparse part of every weight."""

    name: Literal["rosa"] = "rosa"
    density: Annotated[Real, Field(gt=0.0, le=1.0)] = 0.006
    """Share of a weight's entries that the sparse part changes."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps of the low-rank part alone, without it a tenth of all, 64 at most; then one
    micro-batch's gradient chooses the entries."""
    mask_from: str | None = None
    """A run or adapter folder of RoSA whose entries are taken, from the first step on."""
    sparse_lr_ratio: Annotated[Real, Field(gt=0.0)] = 0.3
    """Learning rate of the sparse values over that of A and B."""


class AdaloraConfig(TargetsConfig):
    """AdaLoRA (Zhang et al. 2023): ranks are shared out over the layers while they train."""

    name: Literal["adalora"] = "adalora"
    rank: int = Field(default=12, ge=2)
    """Rank of every layer at the start."""
    target_rank: int = Field(default=8, ge=1)
    """Rank of a layer at the end, on average."""
    alpha: Annotated[Real, Field(gt=0.0)] = 16.0
    """Scale: alpha over the rank at the start."""
    dropout: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout on the adapter's input."""
    initial_steps: int | None = Field(default=None, ge=0)
    """Steps before anything is pruned; without it a tenth of all."""
    final_steps: int | None = Field(default=None, ge=0)
    """Steps at the end with the final ranks; without it three tenths of all."""
    interval: int = Field(default=10, ge=1)
    """Prune each so many steps in between."""
    importance_smoothing: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.85
    """Share of the old in the average of importance."""
    uncertainty_smoothing: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.85
    """Share of the old in the average of its uncertainty."""
    orthogonality: Annotated[Real, Field(ge=0.0)] = 0.5
    """Weight of the penalty that keeps both matrices orthogonal, beside the loss."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the adapter weights."""


class BitfitConfig(TargetsConfig):
    """Bias tuning (Ben Zaken et al. 2021): a delta-bias after each chosen linear."""

    name: Literal["bitfit"] = "bitfit"


class QuantumConfig(TargetsConfig):
    """Quantum-PEFT (Koike-Akino et al. 2025): orthonormal columns that few numbers generate."""

    name: Literal["quantum"] = "quantum"
    rank: int = Field(default=8, ge=1)
    """Columns on either side of the update."""
    alpha: Annotated[Real, Field(gt=0.0)] = 4.0
    """Factor of the update."""
    form: Literal["pauli", "taylor"] = "pauli"
    """What makes the columns: a circuit of rotations, or the exponential of a skew matrix."""
    circuit_layers: int = Field(default=1, ge=1)
    """Entangling layers of the circuit."""
    intrinsic_rank: int | None = Field(default=None, ge=1)
    """Columns of the skew matrix that learn; without it as many as the rank."""


class SoftPromptConfig(Section):
    """Keys of every method that learns embeddings before the input."""

    num_virtual_tokens: int = Field(default=20, ge=1)
    """Length of the soft prompt."""


class PromptConfig(SoftPromptConfig):
    """Prompt tuning (Lester et al. 2021): learned embeddings before the input."""

    name: Literal["prompt"] = "prompt"
    init_text: str | None = None
    """Start from the embeddings of this text, repeated or cut to length; else of random tokens."""


class PTuningConfig(SoftPromptConfig):
    """P-tuning (Liu et al. 2021): embeddings before the input, which a small network makes."""

    name: Literal["p_tuning"] = "p_tuning"
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The network over the virtual tokens; only what it makes is saved."""
    encoder_width: int | None = Field(default=None, ge=1)
    """Its inner width; without it the model's own."""


class PrefixConfig(Section):
    """Prefix tuning (Li and Liang 2021): learned keys and values in every layer."""

    name: Literal["prefix"] = "prefix"
    num_virtual_tokens: int = Field(default=20, ge=1)
    """Length of the prefix."""
    init_text: str | None = None
    """Start as this text before the row, repeated or cut to length; else as random tokens."""


class BottleneckConfig(Section):
    """Bottleneck adapters: a small MLP in every layer (Houlsby et al. 2019)."""

    name: Literal["bottleneck"] = "bottleneck"
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """Behind attention and MLP, behind the MLP, or beside the MLP (He et al. 2022)."""
    width: int = Field(default=64, ge=1)
    """Width of the small MLP."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Between its two matrices."""
    scale: Annotated[Real, Field(gt=0.0)] | None = None
    """Factor of what it adds; without it 1, and 4 for parallel."""
    layers_to_transform: Indices = ()
    """Only these layers; empty means all."""

    @property
    def factor(self) -> float:
        """The scale with its default."""
        if self.scale is not None:
            return self.scale
        return 4.0 if self.placement == "parallel" else 1.0


ModelPart = Literal["attention", "mlp", "norm", "embedding", "head"]
LayerRange = Annotated[str, Field(pattern=r"^(first|last):[1-9][0-9]*$")]


class SelectiveConfig(Section):
    """Selective tuning: tensors of the base itself, by part, layer and type, all three at once."""

    name: Literal["selective"] = "selective"
    parts: Annotated[tuple[ModelPart, ...], Field(strict=False, min_length=1)] = ("norm",)
    """Parts of the model: attention, mlp, norm, embedding, head."""
    pattern: Regex | None = None
    """Of these only modules whose full name is of this regular expression (full match)."""
    layers_to_transform: Indices | LayerRange = ()
    """Only these layers: a list, or first:2, last:4; empty means all and the final norm."""
    types: Annotated[tuple[Literal["weight", "bias"], ...], Field(strict=False, min_length=1)] = (
        *("weight", "bias"),
    )
    """Weights, biases or both."""


LowRankMethod = (
    LoraConfig | LongLoraConfig | LoraFaConfig | DyloraConfig | DeltaLoraConfig | RosaConfig
)
SingleMethod = (
    LowRankMethod
    | AdaloraConfig
    | BitfitConfig
    | QuantumConfig
    | PromptConfig
    | PTuningConfig
    | SelectiveConfig
    | PrefixConfig
    | BottleneckConfig
)
Part = Annotated[SingleMethod, Field(discriminator="name")]


PeftValue = bool | int | float | str | list[Any] | dict[str, Any]


class BridgeConfig(Section):
    """Any tuner of PEFT, with PEFT's own keys; needs the extra qtune[peft]."""

    name: Literal["peft"] = "peft"
    type: Annotated[PeftType, BeforeValidator(known_type)] = "IA3"
    """PEFT's name of the tuner, such as IA3, VERA or OFT."""
    config: dict[str, PeftValue] = {}
    """The keys of PEFT's config class for it, such as target_modules."""


class CombinationConfig(Section):
    """Several methods on one model, written as a list: `method: [{name: lora}, {name: prefix}]`."""

    name: Literal["combination"] = "combination"
    parts: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)] = (LoraConfig(),)
    """The methods, each with its own keys."""
    rates: Annotated[tuple[Annotated[Real, Field(gt=0.0)], ...], Field(strict=False)] = ()
    """Each part's learning rate over optim.learning_rate; empty means 1 for all."""


MethodConfig = Annotated[
    SingleMethod | BridgeConfig | CombinationConfig, Field(discriminator="name")
]


def parts_of(method: MethodConfig) -> tuple[SingleMethod | BridgeConfig, ...]:
    """The methods that a method section names: one, or those of a combination."""
    return method.parts if isinstance(method, CombinationConfig) else (method,)


def leading(method: MethodConfig) -> SingleMethod | BridgeConfig:
    """The method itself; of a combination its first low-rank part, or else its first."""
    parts = parts_of(method)
    return next((part for part in parts if isinstance(part, LowRankConfig)), parts[0])
