"""The reasons behind a plan, one line each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from qtune.plan.adapters import whereabouts
from qtune.plan.choices import ENOUGH_TOKENS, PLAIN, why_whole
from qtune.plan.plan import Decision
from qtune.plan.positions import with_method
from qtune.sizes import count, human

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.choices import Choice, Planner
    from qtune.plan.memory import Costs

AS_ASKED = "as the recipe says"


@dataclass(frozen=True)
class Verdict:
    """What was chosen, and from what."""

    planner: Planner
    choices: tuple[Choice, ...]
    chosen: Choice

    @property
    def costs(self) -> Costs:
        """Of the recipe on its machine."""
        return self.planner.costs

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
        yield from self._strategy()
        yield from self._offload()
        yield self._micro_batch()
        yield self._activations()
        yield from self._base()
        yield from self._copies()
        if not self.costs.shape.classes:
            yield self._loss_chunk()
        yield self._optimizer()
        yield from self._positions()

    def _budget(self) -> Decision:
        machine, wish = self.costs.machine, self.costs.recipe.memory.budget
        reason = machine.note
        if wish is not None:
            smaller = self.planner.budget < machine.device_memory
            reason = AS_ASKED if smaller else f"all there is: {wish} is more"
        return Decision("memory.budget", human(self.planner.budget), reason)

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
        reason = f"{whereabouts(method, shape)}; {share}"
        return Decision("method", f"{method.name}: {count(trained)}", reason)

    def _strategy(self) -> Iterator[Decision]:
        key, number = "distributed.strategy", self.costs.processes
        asked, chosen = self.costs.recipe.distributed.strategy, self.chosen.way.strategy
        if number == 1:
            if asked != "auto":
                yield Decision(key, "none", f"{asked} is for several processes, and this is one")
            return
        whole = "each has the base whole, and gathers nothing"
        held = whole if chosen == "ddp" else f"each has 1/{number} of every 4-bit layer"
        why = AS_ASKED if asked != "auto" else self._why_strategy()
        yield Decision(key, chosen, f"{number} processes; {held}; {why}")

    def _why_strategy(self) -> str:
        """Why the other strategy was not taken."""
        if self.chosen.way.strategy == "fsdp":
            least = self.planner.least_bytes(("ddp",), linked=False)
            return f"ddp would need at least {human(least)}"
        if reason := why_whole(self.costs):
            return reason
        shared = [each for each in self.choices if each.way.strategy == "fsdp"]
        rival = self.planner.choose(shared or self.planner.plain("fsdp"))
        if not self.planner.fits(rival):
            return f"fsdp would need at least {human(rival.least_bytes)}"
        slower = rival.seconds / self.chosen.seconds - 1
        if abs(slower) < 0.005:
            return "fsdp is no faster"
        if slower > 0:
            return f"fsdp is {slower:.0%} slower"
        return f"fsdp may be {-slower:.0%} faster, and ties each pass to those of all"

    def _offload(self) -> Iterator[Decision]:
        key, way = "distributed.offload", self.chosen.way
        wish = self.costs.recipe.distributed.offload
        if way.strategy != "fsdp" or (wish == "auto" and not way.offload):
            return
        if self.costs.machine.device == "cpu":
            reason = "a CPU has one memory"
        elif wish != "auto":
            reason = AS_ASKED
        else:
            reason = f"on the device {self._beside(offload=False)}"
        yield Decision(key, str(way.offload).lower(), reason)

    def _micro_batch(self) -> Decision:
        size, rows = self.chosen.way.micro_batch_size, self.costs.rows
        tokens, passes = f"{size} x {self.costs.row_tokens:,} tokens a pass", ceil(rows / size)
        work = f"{tokens}, {passes} a step"
        if self.costs.recipe.data.packing:
            work = f"rows packed, at most {tokens} and {passes} passes a step"
        return Decision("memory.micro_batch_size", str(size), f"{work}; {self._why_size()}")

    def _why_size(self) -> str:
        recipe, size = self.costs.recipe, self.chosen.way.micro_batch_size
        wish, batch, rows = recipe.memory.micro_batch_size, recipe.train.batch_size, self.costs.rows
        if wish != "auto" and wish > rows and rows < batch:
            return f"a process takes {rows} of {batch} rows"
        if wish != "auto":
            return AS_ASKED if wish <= batch else f"batch_size is only {batch}"
        if size == rows:
            return "the whole batch" if rows == batch else "all rows of a process"
        larger = [each for each in self.planner.micro_batch_sizes() if each > size]
        if not larger:
            most = ENOUGH_TOKENS[self.costs.machine.device]
            return f"more than {most:,} tokens gain nothing"
        return f"{larger[0]} {self._beside(micro_batch_size=larger[0])}"

    def _beside(self, **changes: Any) -> str:
        """Why another value was not taken: it does not fit, or is slower."""
        way = replace(self.chosen.way, **changes)
        if self.costs.recipe.memory.dequantized_layers == "auto":
            way = self.planner.with_copies(replace(way, dequantized_layers=0))
        other = self.planner.weigh(way)
        if not self.planner.fits(other):
            return f"would need {human(other.device_bytes)}"
        slower = other.seconds / self.chosen.seconds - 1
        return f"is {slower:.0%} slower" if slower >= 0.005 else "is no faster"

    def _activations(self) -> Decision:
        key, value = "memory.activations", self.chosen.way.activations
        if self.costs.recipe.memory.activations != "auto":
            return Decision(key, value, AS_ASKED)
        reasons = {
            "none": "nothing is recomputed",
            "selective": "products of matrices are kept",
            "layer": "layers are recomputed",
            "offload": "layers are recomputed, their inputs wait in host memory",
        }
        quicker = PLAIN[: PLAIN.index(value)] if value in PLAIN else PLAIN
        beside = [f"{each} {self._beside(activations=each)}" for each in quicker]
        return Decision(key, value, "; ".join([reasons[value], *beside]))

    def _base(self) -> Iterator[Decision]:
        key, way = "memory.base", self.chosen.way
        asked = self.costs.recipe.memory.base != "auto"
        if way.base == "resident":
            if asked:
                yield Decision(key, way.base, AS_ASKED)
            return
        even, tokens = (
            self.planner.work.break_even_tokens(way),
            way.micro_batch_size * self.costs.row_tokens,
        )
        link = f"the link hides behind the work from {even:,} tokens a pass, here {tokens:,}"
        resident = "" if asked else f"resident {self._beside(base='resident')}; "
        yield Decision(key, way.base, f"{resident}{link}")

    def _copies(self) -> Iterator[Decision]:
        key, way = "memory.dequantized_layers", self.chosen.way
        layers, number = self.costs.layers, way.dequantized_layers
        if not number and self.costs.recipe.memory.dequantized_layers == "auto":
            return
        without = self.planner.weigh(replace(way, dequantized_layers=0)).seconds
        saved = f"without, a step takes {without / self.chosen.seconds - 1:.0%} longer"
        yield Decision(key, f"{number} of {layers.number}", f"kept unfolded; {saved}")

    def _loss_chunk(self) -> Decision:
        chunk = self.chosen.way.loss_chunk_size
        reason = "positions whose logits exist at a time"
        return Decision("memory.loss_chunk_size", f"{chunk:,}", reason)

    def next_best(self) -> str:
        """The fastest that fits of those with another pass or policy; empty without one."""
        way = self.chosen.way
        same = (way.micro_batch_size, way.activations, way.base)
        others = [
            each
            for each in self.choices
            if (each.way.micro_batch_size, each.way.activations, each.way.base) != same
            and self.planner.fits(each)
        ]
        if not others:
            return ""
        second = self.planner.choose(others)
        size, policy, base = second.way.micro_batch_size, second.way.activations, second.way.base
        slower = second.seconds / self.chosen.seconds - 1
        taken = human(second.device_bytes - second.paged)
        streamed = ", base stream" if base == "stream" else ""
        return (
            f"micro_batch_size {size}, activations {policy}{streamed}: {taken}, {slower:.0%} slower"
        )

    def _optimizer(self) -> Decision:
        asked = self.costs.recipe.optim.name
        reason = AS_ASKED
        if self.optimizer != asked:
            reason = f"for {asked}: plain states in host memory, nothing to page from"
        elif self.chosen.paged:
            reason = f"{human(self.chosen.paged)} of its states page out to host memory"
        elif self.costs.pageable:
            reason = "its states fit on the device, and page out under pressure"
        return Decision("optim.name", self.optimizer, reason)

    def _positions(self) -> Iterator[Decision]:
        positions = with_method(self.costs.shape.max_positions, self.costs.recipe.method)
        length = self.costs.row_tokens
        if positions is not None and length > positions:
            reason = f"the model was made for {positions:,} positions: keep rows within that"
            yield Decision("data.max_length", f"{self.costs.recipe.data.max_length:,}", reason)
