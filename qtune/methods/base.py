"""What every method is: modules put into a frozen model, hooks of the loop, tensors for the file.

One step: before_step, forward, extra_loss, backward, after_backward, update, after_step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from qtune.errors import ModelError
from qtune.methods.strict import refuse_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from qtune.methods.adapter import Adapter
    from qtune.ranks import Ranks
    from qtune.recipe.methods import MethodConfig


class CannotMerge(ModelError):  # noqa: N818 - the name is the statement
    """This adapter is no change of weights: why, and what to do instead."""


@dataclass(frozen=True)
class Edit:
    """How a merge changes one parameter of the base; `apply` takes and gives dense fp32 tensors.

    With `needs_base`, apply must be given the base's tensor; where the base has no such parameter,
    an edit that `may_create` it is called with None and the merged model needs a config that
    provides for it (attention_bias, mlp_bias), any other edit is a fault.
    """

    needs_base: bool
    apply: Callable[[Tensor | None], Tensor]
    may_create: bool = False
    optional: bool = False
    """Left out where the base has no such parameter."""
    by_rows: Callable[[Tensor | None, int, int], Tensor] | None = None
    """`apply` for rows [start, stop) of the stored tensor alone, in whose memory the result may be;
    None where it needs all of it."""
    shape: tuple[int, ...] | None = None
    """Of the tensor it edits, as stored, where the adapter says it."""


class Method(ABC):
    """One way to fine-tune; made from its recipe section and a seed, attached to one model."""

    name: ClassVar[str]
    peft_type: ClassVar[str]
    identity_at_start: ClassVar[bool] = True

    def __init__(self, config: MethodConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.adapters: dict[str, Adapter] = {}

    @abstractmethod
    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """Put trainable modules into a frozen model, once; `UsageError` when nothing fits."""

    @abstractmethod
    def detach(self) -> None:
        """Take every module out again: the model is the object it was before."""

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that trains, by its name in PEFT's adapter file."""

    @abstractmethod
    def peft_config(self) -> dict[str, Any]:
        """What adapter_config.json says about the attached method."""

    @classmethod
    @abstractmethod
    def config_from_peft(cls, config: dict[str, Any]) -> MethodConfig:
        """The recipe section of an adapter_config.json; `ModelError` if we do not compute it."""

    @classmethod
    def config_from_file(cls, config: dict[str, Any], names: Collection[str]) -> MethodConfig:
        """As config_from_peft, with the names of the file's tensors where they say more."""
        del names
        return cls.config_from_peft(config)

    @classmethod
    def tensors_from_file(
        cls, config: dict[str, Any], tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """A file's tensors as an attached method has them, where the file leaves something out."""
        del config
        return tensors

    @classmethod
    @abstractmethod
    def merge_edits(
        cls, config: Any, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """Edits by base parameter name, weights [out, in] or, with fan_in_fan_out, [in, out]."""

    def parts(self) -> dict[str, Method]:
        """The methods that a combination is made of, by the folder of each; of others none."""
        return {}

    def own_facts(self) -> dict[str, Any]:
        """What the adapter's metadata says beyond its config, for `config_with_facts`."""
        return {}

    @classmethod
    def config_with_facts(cls, config: Any, facts: dict[str, Any]) -> MethodConfig:
        """The section of a file whose type another method reads, with the method's own facts;
        `config` itself where the file's type is read by its own method."""
        del facts
        found: MethodConfig = config
        return found

    @classmethod
    def merged_config(cls, config: Any, base: dict[str, Any]) -> dict[str, Any]:
        """config.json of the merged model, of its base's."""
        del config
        return base

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups; each trainable parameter is in exactly one."""
        trainable = list(self.parameters().values())
        return groups_by_decay(trainable, learning_rate=learning_rate, weight_decay=weight_decay)

    def will_train(  # noqa: B027 - hooks default to nothing
        self, total_steps: int, *, longest_row: int
    ) -> None:
        """Called once before training, a resumed one too, with the whole run's length and the
        tokens that a row may have."""

    def join(self, ranks: Ranks) -> None:  # noqa: B027 - hooks default to nothing
        """Called once before training with the processes that train it together: what one of them
        draws or chooses from its own rows, all of them must take."""

    def before_step(self, step: int) -> None:  # noqa: B027 - hooks default to nothing
        """Called before the first micro-batch of an optimizer step, and once more when the step is
        done again in smaller ones for lack of memory: nothing else must come of it then."""

    def after_backward(self, step: int) -> None:  # noqa: B027
        """Called when the gradients of a step are complete, before clipping."""

    def after_step(self, step: int) -> None:  # noqa: B027
        """Called after the update, while the gradients still exist."""

    def extra_loss(self) -> Tensor | None:
        """A term beside the task loss."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint carries beside the adapter tensors."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        refuse_differences({}, tensors, what="method state")

    def file_parameters(self) -> Mapping[str, Tensor]:
        """What the adapter file holds: all that trains, unless a method needs more of it."""
        return self.parameters()

    def adapter_state(self) -> dict[str, Tensor]:
        """The content of adapter_model.safetensors: contiguous copies on the CPU."""
        return {
            name: parameter.detach().to("cpu", copy=True).contiguous()
            for name, parameter in self.file_parameters().items()
        }

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other weights; `ModelError` lists foreign, missing and misshapen names."""
        own = self.file_parameters()
        refuse_differences(own, tensors, what="adapter")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The model is the plain base inside."""
        before = {name: adapter.enabled for name, adapter in self.adapters.items()}
        for adapter in self.adapters.values():
            adapter.enabled = False
        try:
            yield
        finally:
            for name, adapter in self.adapters.items():
                adapter.enabled = before[name]


def groups_by_decay(
    parameters: list[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Matrices with weight decay, vectors without: decay would pull a norm or a bias to zero."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = (
        {"params": matrices, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": learning_rate, "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]
