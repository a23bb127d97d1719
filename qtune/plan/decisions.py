"""The reasons behind a plan, one line each."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from qtune.plan.adapters import targeted_linears
from qtune.plan.choices import ENOUGH_TOKENS, PASSES
from qtune.plan.memory import loss_chunk_size
from qtune.plan.plan import Decision
from qtune.plan.sizes import count, human
from qtune.recipe.methods import PromptConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.choices import Choice
    from qtune.plan.memory import Costs

AS_ASKED = "as the recipe says"


@dataclass(frozen=True)
class Verdict:
    """What was chosen, and from what."""

    costs: Costs
    choices: tuple[Choice, ...]
    chosen: Choice
    budget: int
    paged: int

    @property
    def optimizer(self) -> str:
        """The optimizer on this machine: without CUDA a paged one is the plain one."""
        asked, states = self.costs.recipe.optim.name, self.costs.states
        return states.name if asked.startswith("paged_") and not states.paged else asked

    def decisions(self) -> Iterator[Decision]:
        """Every value with its reason, by the recipe's key."""
        yield self._budget()
        yield self._quantization()
        yield self._method()
        yield self._micro_batch()
        yield self._activations()
        yield self._loss_chunk()
        yield self._optimizer()
        yield from self._positions()

    def _budget(self) -> Decision:
        machine, wish = self.costs.machine, self.costs.recipe.memory.budget
        reason = machine.note
        if wish is not None:
            smaller = self.budget < machine.device_memory
            reason = AS_ASKED if smaller else f"all there is: {wish} is more"
        return Decision("memory.budget", human(self.budget), reason)

    def _quantization(self) -> Decision:
        shape, holding = self.costs.shape, self.costs.holding
        quantised = sum(holding.quantizes(linear) for linear in shape.linears)
        reason = f"{quantised} of {len(shape.linears)} linears; embeddings, norms, head never"
        if holding.already:
            reason = f"so is the checkpoint; {reason}"
        elif holding.bits == 16:
            reason = AS_ASKED
        elif not quantised:
            reason = f"no linear of this {shape.family} is quantised"
        return Decision("quantization", holding.name if quantised else holding.dense, reason)

    def _method(self) -> Decision:
        method, shape = self.costs.recipe.method, self.costs.shape
        trained = sum(tensor.elements for tensor in self.costs.tensors)
        share = f"{trained / shape.total_parameters:.2%} of {count(shape.total_parameters)}"
        if isinstance(method, PromptConfig):
            where = f"{method.num_virtual_tokens} learned positions before each row"
        else:
            where = f"on {len(targeted_linears(method, shape))} of {len(shape.linears)} linears"
        return Decision("method", f"{method.name}: {count(trained)}", f"{where}; {share}")

    def _micro_batch(self) -> Decision:
        size, batch = self.chosen.micro_batch_size, self.costs.recipe.train.batch_size
        work = f"{size} x {self.costs.row_tokens:,} tokens a pass, {ceil(batch / size)} a step"
        return Decision("memory.micro_batch_size", str(size), f"{work}; {self._why_size()}")

    def _why_size(self) -> str:
        recipe, size = self.costs.recipe, self.chosen.micro_batch_size
        wish, batch = recipe.memory.micro_batch_size, recipe.train.batch_size
        if wish != "auto":
            return AS_ASKED if wish <= batch else f"batch_size is only {batch}"
        if size == batch:
            return "the whole batch"
        larger = [choice for choice in self._same_policy() if choice.micro_batch_size > size]
        if not larger:
            most = ENOUGH_TOKENS[self.costs.machine.device]
            return f"more than {most:,} tokens gain nothing"
        return f"{larger[0].micro_batch_size} would need {human(larger[0].device_bytes)}"

    def _same_policy(self) -> list[Choice]:
        wanted = self.chosen.policy
        return [choice for choice in self.choices if choice.policy == wanted]

    def _activations(self) -> Decision:
        key, value = "memory.activations", self.chosen.policy
        if self.costs.recipe.memory.activations != "auto":
            return Decision(key, value, AS_ASKED)
        if value == "none":
            return Decision(key, value, "all activations fit: nothing is recomputed")
        others = {
            choice.policy: choice.device_bytes
            for choice in self.choices
            if choice.micro_batch_size == self.chosen.micro_batch_size
        }
        quicker = [each for each in others if PASSES[each] < PASSES[value]]
        return Decision(
            key, value, "; ".join(f"{each} would need {human(others[each])}" for each in quicker)
        )

    def _loss_chunk(self) -> Decision:
        chunk = loss_chunk_size(self.costs.recipe)
        reason = "positions whose logits exist at a time"
        return Decision("memory.loss_chunk_size", f"{chunk:,}", reason)

    def _optimizer(self) -> Decision:
        asked = self.costs.recipe.optim.name
        reason = AS_ASKED
        if self.optimizer != asked:
            reason = f"for {asked}: plain states in host memory, nothing to page from"
        elif self.paged:
            reason = f"{human(self.paged)} of its states page out to host memory"
        elif self.costs.pageable:
            reason = "its states fit on the device, and page out under pressure"
        return Decision("optim.name", self.optimizer, reason)

    def _positions(self) -> Iterator[Decision]:
        positions, length = self.costs.shape.max_positions, self.costs.row_tokens
        if positions is not None and length > positions:
            reason = f"the model was made for {positions:,} positions: keep rows within that"
            yield Decision("data.max_length", f"{self.costs.recipe.data.max_length:,}", reason)
