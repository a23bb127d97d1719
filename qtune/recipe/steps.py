"""The sections of a recipe that say how it is learnt: optim, train, memory, distributed, watchdog.

The text under a key is its documentation: `qtune schema` prints it, and faults quote it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qtune.recipe.duration import Duration  # noqa: TC001 - pydantic reads it
from qtune.recipe.section import Real, Section, Share, Size

ActivationPolicy = Literal["none", "selective", "layer", "offload"]
Base = Literal["resident", "stream"]
Kernels = Literal["auto", "plain", "fused", "triton"]
Sharing = Literal["ddp", "fsdp"]


class OptimSection(Section):
    """The update rule."""

    name: Literal[
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "adamw_8bit",
        "paged_lion_8bit",
        "lion_8bit",
        "ademamix_8bit",
        "adamw",
        "sgd",
    ] = "paged_adamw_32bit"
    """The optimizer; paged ones keep their states in unified memory on CUDA."""
    learning_rate: Annotated[Real, Field(gt=0.0)] = 2e-4
    """The peak learning rate."""
    weight_decay: Annotated[Real, Field(ge=0.0)] = 0.0
    """Decoupled weight decay of the trainable matrices."""
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the moments; momentum of sgd is the first."""
    eps: Annotated[Real, Field(gt=0.0)] = 1e-8
    """Added to the root of the second moment."""
    max_grad_norm: Annotated[Real, Field(gt=0.0)] = 0.3
    """Clip the norm of all gradients together to this."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up."""
    warmup_ratio: Share = 0.03
    """Share of the steps with a rising learning rate."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """The same in steps; wins over warmup_ratio."""
    min_lr_ratio: Share = 0.0
    """Where linear and cosine end, as a share of learning_rate."""


class TrainSection(Section):
    """How long, in what steps, and where to."""

    num_train_epochs: Annotated[Real, Field(gt=0.0)] = 1.0
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; wins over num_train_epochs."""
    batch_size: int = Field(default=16, ge=1)
    """Rows of one optimizer step, however they are split into micro-batches."""
    group_by_length: bool = False
    """Put rows of like length into one step: less padding, a less random order."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the adapter's start, of dropout and of the data order."""
    output_dir: str | None = None
    """The run folder; without it runs/<recipe name> below the working directory."""
    max_time: Duration | None = None
    """Stop between two steps after this time, such as 5h30m, with exit code 75; resumable."""


class MemorySection(Section):
    """What the plan may decide, or what you decide for it."""

    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Rows of one forward pass."""
    activations: Literal["auto"] | ActivationPolicy = "auto"
    """What is recomputed in the backward pass: nothing, all but matrix products, whole layers, or
    those with their inputs waiting in host memory."""
    kernels: Kernels = "auto"
    """How blocks are computed: plain, as transformers does; fused, which keeps less for the
    backward pass, an error where no block can be; triton: fused, and with Triton's kernels, an
    error where they cannot run; auto: fused and with these kernels, wherever either can be."""
    base: Literal["auto"] | Base = "auto"
    """Where the frozen 4-bit layers are: on the device (resident), or in host memory or on disk,
    from where each comes when it is its turn (stream)."""
    dequantized_layers: Literal["auto", "all"] | Annotated[int, Field(ge=0)] = "auto"
    """Layers whose quantised weights are also kept unfolded, in the compute dtype, where memory is
    left for it: saves unfolding them in every pass."""
    loss_chunk_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Supervised positions whose logits exist at a time."""
    budget: Size | None = None
    """Device memory the run may use, such as 20GB, of each device where there are several; without
    it all that is free."""
    on_oom: Literal["error", "shrink"] = "error"
    """What happens when memory runs out in a step: the run stops (exit 5) and can go on, or the
    step is done again in micro-batches of half the rows, as are the rest; the loss is the same."""


class DistributedSection(Section):
    """How several processes, one a device, train one model; one alone needs none of it."""

    strategy: Literal["auto"] | Sharing = "auto"
    """What each device holds of the frozen base: all of it (ddp), or a share of every layer, the
    whole of which comes from the other devices when it is its turn (fsdp); auto: ddp where it
    fits."""
    offload: Literal["auto"] | bool = "auto"
    """Whether these shares wait in host memory; auto: where the device has no room for them."""


class WatchdogSection(Section):
    """When a run counts as diverged (exit 6), beside losses and gradients that are not finite."""

    loss_limit: Annotated[Real, Field(gt=0.0)] | None = None
    """Stop when a step's loss is above this, before its update."""
    grad_norm_limit: Annotated[Real, Field(gt=0.0)] | None = None
    """Stop when a step's gradient norm, before clipping, is above this."""
    patience: int = Field(default=1, ge=1)
    """How many steps in a row must be above a limit."""
