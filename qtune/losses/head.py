"""The way from hidden states to logits, apart from the model's forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class Head:
    """Logits of chosen hidden states: the output layer and what some families do after it.

    Known: Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`, Gemma caps with
    `final_logit_softcapping`. `check_head` proves the choice on the loaded model.
    """

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        if layer is None:
            raise ModelError(f"{type(model).__name__} has no output layer to learn through")
        config = model.config.get_text_config()
        self._layer = layer
        self._scale = float(getattr(config, "logit_scale", None) or 1.0)
        self._scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)

    def __call__(self, hidden_SH: Tensor) -> Tensor:
        """[S, H] -> [S, V]."""
        logits_SV: Tensor = self._layer(hidden_SH)
        if self._scale != 1.0:
            logits_SV = logits_SV * self._scale
        if self._softcap is not None:
            logits_SV = torch.tanh(logits_SV / self._softcap) * self._softcap
        return logits_SV


def hidden_states(model: Any, **inputs: Tensor) -> Tensor:
    """The last hidden states [B, T, H], after the final norm and before the head."""
    hidden_BTH: Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden_BTH


@torch.no_grad()
def check_head(model: Any, input_ids_T: Tensor, *, tolerance: float = 1e-2) -> None:
    """Raise `ModelError` unless hidden states through `Head` give the model's own logits.

    One short forward at start; a family with another step between them would train on a wrong
    loss in silence. `tolerance` is relative to the largest logit.
    """
    training = model.training
    model.eval()
    input_ids_BT = input_ids_T[None]
    own_TV = model(input_ids=input_ids_BT, use_cache=False).logits[0].float()
    ours_TV = Head(model)(hidden_states(model, input_ids=input_ids_BT)[0]).float()
    model.train(training)
    error = float((own_TV - ours_TV).abs().max() / own_TV.abs().max().clamp_min(1e-6))
    if not error <= tolerance:
        raise ModelError(
            f"the logits of {type(model).__name__} are not its output layer's (they differ by "
            f"{error:.2g} of the largest)",
            hint="qtune does not know this family's head yet; please report it",
        )
