"""P-tuning (Liu et al. 2021): embeddings before the input that a small network makes.

The network helps the learning alone: the file holds what it makes, P x hidden numbers, as PEFT's
does. A checkpoint holds the network beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from qtune.methods import virtual_tokens
from qtune.methods.adapter import generator_for
from qtune.methods.prompt import BeforeTokens
from qtune.methods.soft_prompt import VirtualTokens
from qtune.methods.strict import refuse_differences
from qtune.methods.virtual_tokens import NAME
from qtune.recipe.methods import PTuningConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

LSTM_LAYERS = 2
_ENCODER = ("encoder_reparameterization_type", "encoder_hidden_size")
_DEFAULTS = ("encoder_num_layers", "encoder_dropout")


class EncodedPrompt(VirtualTokens):
    """Embeddings [P, H] that an MLP, or a bidirectional LSTM and an MLP, makes of learned ones."""

    def __init__(self, config: PTuningConfig, *, embedding: nn.Module, seed: int) -> None:
        super().__init__(config.num_virtual_tokens, embedding=embedding)
        weight: Tensor = embedding.weight  # type: ignore[assignment]
        hidden = weight.shape[1]
        width = config.encoder_width or hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator_for(seed, NAME).initial_seed()))
            self.inputs = nn.Parameter(torch.randn(self.count, hidden))
            self.lstm = _lstm(hidden, width) if config.encoder == "lstm" else None
            self.head = _head(hidden, width, deep=config.encoder == "mlp")
        self.to(weight.device)
        self._given: Tensor | None = None
        self._made_then: Tensor | None = None

    def made(self) -> Tensor:
        """What the network makes."""
        inputs = self.inputs if self.lstm is None else self.lstm(self.inputs)[0]
        found: Tensor = self.head(inputs)
        return found

    def values(self) -> Tensor:
        """What the network makes; of given embeddings, those and what it has changed since."""
        if self._given is None or self._made_then is None:
            return self.made()
        return self._given + (self.made() - self._made_then)

    @torch.no_grad()
    def give(self, embeddings: Tensor | None) -> None:
        """Go on from these embeddings [P, H]; None: from what the network makes."""
        given = embeddings is not None
        device = self.inputs.device
        self._given = embeddings.to(device, torch.float32, copy=True) if given else None  # type: ignore[union-attr]
        self._made_then = self.made().detach() if given else None

    def tensors(self) -> dict[str, nn.Parameter]:
        """The network and what goes into it."""
        return dict(self.named_parameters())


class PTuning(BeforeTokens):
    """A soft prompt that a network makes."""

    name: ClassVar[str] = "p_tuning"
    peft_type: ClassVar[str] = "P_TUNING"
    config: PTuningConfig
    _tokens: EncodedPrompt

    def make(self, embedding: Any, tokenizer: Any) -> VirtualTokens:  # noqa: ARG002
        """The network as it is drawn from the seed."""
        return EncodedPrompt(self.config, embedding=embedding, seed=self.seed)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The network and what goes into it; the file holds what comes out."""
        return self._tokens.tensors()

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:  # noqa: ARG002
        """One group without weight decay: it would pull the prompt to nothing."""
        trainable = list(self.parameters().values())
        return [{"params": trainable, "lr": learning_rate, "weight_decay": 0.0}]

    @torch.no_grad()
    def adapter_state(self) -> dict[str, Tensor]:
        """PEFT's layout: the embeddings, [P, H]."""
        return {NAME: self._tokens.values().detach().to("cpu", copy=True).contiguous()}

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other embeddings; the network learns on from them."""
        refuse_differences(self.adapter_state(), tensors, what="adapter")
        self._tokens.give(tensors[NAME])

    def state(self) -> dict[str, Tensor]:
        """The network, which the adapter's file does not hold."""
        return {
            name: parameter.detach().to("cpu", copy=True).contiguous()
            for name, parameter in self.parameters().items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the network back; its embeddings are its own again."""
        own = self.parameters()
        refuse_differences(own, tensors, what="method state")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])
        self._tokens.give(None)

    def peft_config(self) -> dict[str, Any]:
        """A PromptEncoderConfig of PEFT."""
        facts = self.prompt_facts()
        return {
            **facts,
            "encoder_reparameterization_type": self.config.encoder.upper(),
            "encoder_hidden_size": self.config.encoder_width or facts["token_dim"],
            "encoder_num_layers": LSTM_LAYERS,
            "encoder_dropout": 0.0,
        }

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> PTuningConfig:
        """Read a PromptEncoderConfig of PEFT; how deep its LSTM was does not matter any more."""
        read = virtual_tokens.read(PTuningConfig, config, also={*_ENCODER, *_DEFAULTS})
        kind, width = (config.get(key) for key in _ENCODER)
        encoder = "lstm" if kind == "LSTM" else "mlp"
        return read.model_copy(update={"encoder": encoder, "encoder_width": width})


def _lstm(hidden: int, width: int) -> nn.LSTM:
    return nn.LSTM(hidden, width, num_layers=LSTM_LAYERS, bidirectional=True, batch_first=True)


def _head(hidden: int, width: int, *, deep: bool) -> nn.Sequential:
    """Three layers over the embeddings, or two over both directions of the LSTM."""
    sizes = [(hidden, width), (width, width)] if deep else [(2 * width, 2 * width)]
    layers: list[nn.Module] = []
    for inputs, outputs in sizes:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1][1], hidden))
