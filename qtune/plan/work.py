"""What a recipe computes and moves for a token, and how long that takes on a device.

Legend: N weights of the base's linears, P of the adapters, T tokens of a micro-batch, q = heads x
head_dim, L tokens of a row, c bytes of the compute dtype, k bytes that a token keeps of all layers.

  base        2 N a token forward, 2 N for the gradient (none by the frozen weights), 2 N again
              where layers are recomputed; at least the time to read c N
  adapters    2 P forward, 4 P backward, 2 P again, in their own dtype
  attention   2 q L a layer (causal; eager 4), 2.5 times that backward
  head        4 V h a position, its weight read twice a chunk
  unfolding   4-bit weights read and written in c bytes, once a pass over the base
  elements    what lies between the products moves about what it keeps: 2 k forward, 3 k backward
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from qtune.plan.adapters import DTYPE_BYTES
from qtune.plan.devices import NETWORK
from qtune.plan.traffic import traffic_of
from qtune.recipe.lessons import lessons_of
from qtune.recipe.methods import LowRankConfig, leading

if TYPE_CHECKING:
    from qtune.plan.devices import Device
    from qtune.plan.memory import Costs
    from qtune.plan.way import Way

# Shares of the data sheet's figures that whole kernels reach.
PRODUCTS, MOVES = 0.7, 0.8
# Kernels of one layer's forward pass, and those that an adapter adds.
KERNELS, KERNELS_AN_ADAPTER = 25, 7
# Kernels that update one trained tensor.
KERNELS_AN_UPDATE = 10
# Unified memory that pages moves at about half the link's speed.
PAGING = 0.5
AGAIN = {"none": 0.0, "selective": 0.0, "layer": 1.0, "offload": 1.0}


@dataclass(frozen=True)
class Estimate:
    """Seconds of one optimizer step with rows at their longest, by what they go to."""

    base: float
    adapters: float
    attention: float
    head: float
    unfolding: float
    elements: float
    waiting: float
    """For kernels to start and for the link to the host."""
    update: float
    tokens: int
    """Of the step, of all processes."""
    exchange: float = 0.0
    """For other devices: gradients, and weights beyond the work that they travel beside."""

    @property
    def seconds(self) -> float:
        """All of it."""
        products = self.base + self.adapters + self.attention + self.head
        own = products + self.unfolding + self.elements + self.waiting + self.update
        return own + self.exchange

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class _Pass:
    """Seconds of one pass of a micro-batch: forward, gradient, or what is made again."""

    base: float = 0.0
    adapters: float = 0.0
    attention: float = 0.0
    head: float = 0.0
    unfolding: float = 0.0
    elements: float = 0.0

    @property
    def seconds(self) -> float:
        return (
            self.base + self.adapters + self.attention + self.head + self.unfolding + self.elements
        )


@dataclass(frozen=True)
class Work:
    """The work of one recipe on one device, apart from the way it is run."""

    device: Device
    costs: Costs
    low_rank: int
    """Numbers in the adapters' matrices."""
    adapted: int
    """How many linears carry one."""
    update: float
    """Seconds of the update itself."""

    @classmethod
    def of(cls, costs: Costs, device: Device) -> Work:
        """Count a recipe's adapters once."""
        low_rank = sum(
            each.rank * (each.linear.in_features + each.linear.out_features)
            for each in costs.adapted
        )
        trained = sum(tensor.size for tensor in costs.tensors)
        moved = 3 * trained + 2 * costs.states.total(costs.tensors)
        starts = KERNELS_AN_UPDATE * len(costs.tensors) * device.starts
        update = starts + moved / (device.bandwidth * MOVES)
        return cls(device, costs, low_rank, len(costs.adapted), update)

    def estimate(self, way: Way, *, paged: int) -> Estimate:
        """Seconds of a step; `paged`: bytes of optimizer states that wait in host memory."""
        passes = ceil(self.costs.rows / way.micro_batch_size)
        tokens = way.micro_batch_size * self.costs.row_tokens
        forward = self._forward(tokens, way)
        again = self._again(forward, way)
        back = self._backward(forward)
        backward = again.seconds + back.seconds
        waiting = self._waiting(way, tokens, forward.seconds, backward)

        def whole(part: str) -> float:
            return passes * sum(float(getattr(each, part)) for each in (forward, again, back))

        return Estimate(
            base=whole("base") + passes * self._teaching(tokens),
            adapters=whole("adapters"),
            attention=whole("attention"),
            head=whole("head"),
            unfolding=whole("unfolding"),
            elements=whole("elements"),
            waiting=passes * waiting,
            update=self.update + 2 * paged / (PAGING * self.device.link),
            tokens=self.costs.recipe.train.batch_size * self.costs.row_tokens,
            exchange=self._exchange(way, passes, forward.seconds, backward),
        )

    def _exchange(self, way: Way, passes: int, forward: float, backward: float) -> float:
        """Gradients are summed when all else is done; a layer comes while another computes, but
        not on a CPU, which does both."""
        if way.strategy == "none":
            return 0.0
        traffic, rate = traffic_of(self.costs, way), self.between
        visit, beside = self._gathering(way), self.costs.machine.device == "cuda"
        times = [forward] * (traffic.visits - 1) + [backward] * bool(traffic.visits)
        gathering = sum(max(0.0, visit - time) if beside else visit for time in times)
        return traffic.gradients / rate + passes * gathering

    def _gathering(self, way: Way) -> float:
        """Seconds until all layers have been whole once: the device's own parts from the host, if
        they wait there, and the others'."""
        own = self.costs.layers.packed_together / self.costs.processes if way.offload else 0.0
        return traffic_of(self.costs, way).weights / self.between + own / self.device.link

    @property
    def between(self) -> float:
        """Bytes a second that each device sends to the others."""
        device = self.device.between
        return MOVES * (min(device, NETWORK) if self.wire == "network" else device)

    @property
    def wire(self) -> str:
        """What joins the devices."""
        seats = self.costs.machine.seats
        return "network" if 0 < seats < self.costs.processes else self.device.wire

    def _teaching(self, tokens: int) -> float:
        """The teacher's pass, its head and the unfolding of its weights."""
        costs = self.costs
        if costs.recipe.loss.teacher is None or lessons_of(costs.recipe) is not None:
            return 0.0
        shape, each = costs.shape.teacher or costs.shape, costs.holding.compute_bytes
        weights = shape.active_parameters + shape.vocab_size * shape.hidden_size
        reading = each * weights / self._bandwidth
        return max(2 * weights * tokens / self._flops(each), reading) + reading

    def break_even_tokens(self, way: Way) -> int:
        """Tokens of a pass from which moving the layers, from the host or from other devices,
        takes no longer than the forward pass."""
        moving = self._layers_moved() / self.device.link
        if way.strategy == "fsdp":
            moving = self._gathering(way)
        few, many = (self._forward(tokens, way).seconds for tokens in (20_000, 40_000))
        each = (many - few) / 20_000
        fixed = few - 20_000 * each
        return max(1, ceil((moving - fixed) / each))

    def _flops(self, dtype_bytes: int) -> float:
        flops = self.device.flops * PRODUCTS
        return flops if dtype_bytes == 2 else flops / self.device.narrow

    @property
    def _bandwidth(self) -> float:
        return self.device.bandwidth * MOVES

    def _forward(self, tokens: int, way: Way) -> _Pass:
        costs, shape = self.costs, self.costs.shape
        each = costs.holding.compute_bytes
        weights = shape.active_parameters
        flops = self._flops(each)
        eager = costs.recipe.model.attn_implementation == "eager"
        scores = (4 if eager else 2) * shape.heads * shape.head_dim * costs.row_tokens
        return _Pass(
            base=max(2 * weights * tokens / flops, each * weights / self._bandwidth),
            adapters=2 * self.low_rank * tokens / self._flops(self._adapter_bytes),
            attention=shape.layers * scores * tokens / flops,
            head=self._head(tokens, way.loss_chunk_size),
            unfolding=self._unfolding(way),
            elements=2 * costs.activations.kept * tokens / self._bandwidth,
        )

    def _head(self, tokens: int, chunk: int) -> float:
        """Forward and gradient at once, a chunk of positions at a time."""
        shape, each = self.costs.shape, self.costs.holding.compute_bytes
        numbers = shape.scores * shape.hidden_size
        products = 4 * numbers * tokens / self._flops(each)
        reading = ceil(tokens / chunk) * 2 * each * numbers / self._bandwidth
        logits = 4 * each * shape.scores * tokens / self._bandwidth
        return max(products, reading) + logits

    def _unfolding(self, way: Way) -> float:
        layers = self.costs.layers
        if self.costs.holding.bits != 4 or not layers.number:
            return 0.0
        folded = layers.number - min(way.dequantized_layers, layers.number)
        return folded * (layers.folded + layers.unfolded) / self._bandwidth

    def _again(self, forward: _Pass, way: Way) -> _Pass:
        """What a policy computes a second time."""
        kept = self.costs.activations
        if way.activations == "none":
            return _Pass()
        if way.activations == "selective":
            between = 1 - kept.layers * kept.products / max(1, kept.kept)
            # half of an adapter's work, its second matrix, is no kept product
            return _Pass(
                base=kept.again * forward.base,
                adapters=(kept.again or 0.5) * forward.adapters,
                unfolding=kept.again * forward.unfolding,
                elements=max(0.0, between) * forward.elements,
            )
        return _Pass(
            base=forward.base,
            adapters=forward.adapters,
            attention=forward.attention,
            unfolding=forward.unfolding,
            elements=forward.elements,
        )

    def _backward(self, forward: _Pass) -> _Pass:
        return _Pass(
            base=forward.base,
            adapters=2 * forward.adapters,
            attention=2.5 * forward.attention,
            unfolding=forward.unfolding,
            elements=1.5 * forward.elements,
        )

    def _waiting(self, way: Way, tokens: int, forward: float, backward: float) -> float:
        """What kernels' starts and the link take beyond the work that they run beside."""
        moved = self._layers_moved() if way.base == "stream" else 0
        if way.activations == "offload" and self.costs.machine.device == "cuda":
            inputs = self.costs.activations.layers * self.costs.activations.layer_input
            moved += inputs * tokens
        visit = moved / self.device.link
        link = max(0.0, visit - forward) + max(0.0, visit - backward)
        kernels = self.costs.shape.layers * KERNELS + self.adapted * KERNELS_AN_ADAPTER
        starts = self.device.starts * kernels * (3 + (way.activations != "none"))
        if self.costs.machine.device == "cpu":
            return link + starts
        return link + max(0.0, starts - forward - backward - link)

    def _layers_moved(self) -> int:
        """Bytes of the layers that come over the link in one pass; the last two are there."""
        return max(0, self.costs.layers.number - 2) * self.costs.layers.folded

    @property
    def _adapter_bytes(self) -> int:
        method = leading(self.costs.recipe.method)
        return DTYPE_BYTES[method.dtype] if isinstance(method, LowRankConfig) else 4
