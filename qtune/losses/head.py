"""The way from hidden states to logits, apart from the model's forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError
from qtune.ops.linears import output_head
from qtune.ops.logits import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn


def output_layer(model: Any) -> nn.Module:
    """The module that turns hidden states into scores; `ModelError` where there is none."""
    layer = output_head(model)
    if layer is None:
        raise ModelError(f"{type(model).__name__} has no output layer to learn through")
    return layer


def criterion_of(model: Any, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Criterion:
    """What a position costs, with what some families do after their output layer.

    Known: Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`, Gemma caps with
    `final_logit_softcapping`. `check_head` proves the choice on the loaded model.
    """
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    softcap: float | None = getattr(config, "final_logit_softcapping", None)
    return Criterion(scale=scale, softcap=softcap, label_smoothing=label_smoothing, z_loss=z_loss)


def hidden_states(model: Any, **inputs: Tensor) -> Tensor:
    """The last hidden states [B, T, H], after the final norm and before the head."""
    hidden_BTH: Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden_BTH


@torch.no_grad()
def check_head(model: Any, input_ids_T: Tensor, *, tolerance: float = 1e-2) -> None:
    """Raise `ModelError` unless hidden states through the output layer give the model's own logits.

    One short forward at start; a family with another step between them would train on a wrong
    loss in silence. `tolerance` is relative to the largest logit.
    """
    training = model.training
    model.eval()
    input_ids_BT = input_ids_T[None]
    own_TV = model(input_ids=input_ids_BT, use_cache=False).logits[0].float()
    raw_TV = output_layer(model)(hidden_states(model, input_ids=input_ids_BT)[0])
    ours_TV = criterion_of(model).logits(raw_TV.float())
    model.train(training)
    error = float((own_TV - ours_TV).abs().max() / own_TV.abs().max().clamp_min(1e-6))
    if not error <= tolerance:
        raise ModelError(
            f"the logits of {type(model).__name__} are not its output layer's (they differ by "
            f"{error:.2g} of the largest)",
            hint="qtune does not know this family's head yet; please report it",
        )
