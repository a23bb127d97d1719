"""The device at work: a real 4-bit step, a paged optimizer, bf16 and Triton's kernels.

Runs in a process of its own (`probe.py`): a broken driver may end it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.run.doctor.finding import Finding

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FAR = 0.02
"""How far a bf16 product may be from the same one in fp32, in the 2-norm; rounding makes 0.004."""
DRIVER = "see nvidia-smi; reinstall the driver, or torch for this CUDA version"
OUT, IN, RANK, ROWS = 320, 256, 8, 40


def device() -> torch.device:
    """The one that a run would take."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_device() -> Finding:
    """Name, memory and compute capability of the GPU, or that there is none."""
    import torch

    from qtune.plan import human

    built = torch.version.cuda
    if not torch.cuda.is_available():
        if built is None:
            return Finding("device", "ok", f"CPU; torch {torch.__version__} has no CUDA")
        said = f"CPU: torch is built for CUDA {built}, and no GPU answers"
        return Finding("device", "warning", said, DRIVER)
    made = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    said = (
        f"{made.name}, {human(free)} of {human(total)} free, "
        f"capability {made.major}.{made.minor}, CUDA {built}"
    )
    torch.ones(8, device="cuda").sum().item()
    if made.major < 7:
        return Finding("device", "warning", said, "older than bitsandbytes' 4-bit kernels are for")
    if free < total // 2:
        return Finding("device", "warning", said, "another process holds it: see nvidia-smi")
    return Finding("device", "ok", said)


def check_bf16() -> Finding:
    """bf16 products against fp32; and whether the hardware has them."""
    import torch

    on = device()
    first, second = _drawn(on, 64, 128), _drawn(on, 128, 96)
    far = _distance(first.bfloat16() @ second.bfloat16(), first @ second)
    if far > FAR:
        return Finding("bf16", "fault", f"products are {far:.1%} off", DRIVER)
    if on.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        advice = "set quantization.compute_dtype: float32 if a loss is not finite"
        return Finding("bf16", "warning", "emulated: this GPU has no bf16", advice)
    return Finding("bf16", "ok", f"products within {far:.2%} of fp32")


def check_four_bits() -> Finding:
    """One NF4 linear with LoRA, forward and backward, against its dequantised weight in fp32."""
    found = four_bit_step(device())
    worst = max(found, key=lambda name: found[name])
    said = f"forward and backward within {found[worst]:.2%} of fp32"
    if not found[worst] <= FAR:
        advice = "reinstall bitsandbytes: python -m bitsandbytes tells what it found"
        return Finding("4-bit step", "fault", f"{worst} is {found[worst]:.1%} off", advice)
    return Finding("4-bit step", "ok", said)


def four_bit_step(on: torch.device) -> dict[str, float]:
    """How far output and gradients of the real path are from an independent one in fp32."""
    import torch

    from qtune.methods.lora_linear import LoraLinear
    from qtune.ops import nf4

    base = nf4.library().nn.Linear4bit(
        IN,
        OUT,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
    )
    with torch.no_grad():
        base.weight.data = _drawn(torch.device("cpu"), OUT, IN) / IN**0.5
    base = base.to(on)
    draw = torch.Generator().manual_seed(0)
    layer = LoraLinear(base, rank=RANK, scale=2.0, dropout=0.0, dtype=torch.float32, generator=draw)
    with torch.no_grad():
        layer.up.copy_(_drawn(on, OUT, RANK) * 0.1)
    x = _drawn(on, ROWS, IN).bfloat16().requires_grad_()
    seed = _drawn(on, ROWS, OUT)
    output = layer(x)
    output.backward(seed.to(output.dtype))
    weight = nf4.dequantize(base.weight.data, base.weight.quant_state).float()
    plain = x.detach().float().requires_grad_()
    down, up = (each.detach().clone().requires_grad_() for each in (layer.down, layer.up))
    wanted = plain @ weight.T + 2.0 * (plain @ down.T) @ up.T
    wanted.backward(seed)
    pairs: dict[str, tuple[Any, Any]] = {
        "the output": (output, wanted),
        "the input's gradient": (x.grad, plain.grad),
        "A's gradient": (layer.down.grad, down.grad),
        "B's gradient": (layer.up.grad, up.grad),
    }
    return {name: _distance(*pair) for name, pair in pairs.items()}


def check_paged_optimizer() -> Finding:
    """One step of paged AdamW, against AdamW written out."""
    import torch

    from qtune import optim
    from qtune.recipe.steps import OptimSection

    on = device()
    weight = torch.nn.Parameter(_drawn(on, 64, 96))
    before, gradient = weight.detach().clone(), _drawn(on, 64, 96)
    section = OptimSection(name="paged_adamw_32bit", learning_rate=0.01)
    group: dict[str, Any] = {"params": [weight], "lr": 0.01, "weight_decay": 0.0}
    optimizer = optim.make(section, [group])
    weight.grad = gradient.clone()
    optimizer.step()
    wanted = before - 0.01 * gradient / (gradient.abs() + section.eps)  # of a first step
    far = _distance(weight.detach() - before, wanted - before)
    paged = "its states paged" if on.type == "cuda" else "nothing to page on a CPU"
    if not far <= 0.001:
        advice = "set optim.name: adamw, and reinstall bitsandbytes"
        return Finding("paged optimizer", "fault", f"a step is {far:.1%} off", advice)
    return Finding("paged optimizer", "ok", f"a step is right, {paged}")


def check_triton() -> Finding:
    """Triton's kernels, each compiled and compared as at the start of a run; on CUDA only."""
    from qtune.ops.element_wise import FAMILIES, why_torch
    from qtune.ops.trial import why_not

    on = device()
    reason = why_torch(on) if on.type == "cuda" else "no CUDA device"
    if reason is not None:
        state: Any = "ok" if on.type == "cpu" else "warning"
        advice = "" if on.type == "cpu" else "pip install triton: runs are slower without"
        return Finding("Triton kernels", state, f"not taken: {reason}", advice)
    against = {family: why_not(family, on) for family in FAMILIES}
    left = [f"{family} ({why})" for family, why in against.items() if why and "speed" not in why]
    if left:
        advice = "torch computes these instead; a compiler (gcc) and Python's headers are needed"
        return Finding("Triton kernels", "warning", f"not taken: {'; '.join(left)}", advice)
    taken = [family for family, why in against.items() if why is None]
    return Finding("Triton kernels", "ok", ", ".join(taken))


def _drawn(on: torch.device, *shape: int) -> Tensor:
    import torch

    draw = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=draw).to(on)


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Relative difference in the 2-norm."""
    wanted = wanted.detach().double()
    return float((found.detach().double() - wanted).norm() / wanted.norm())
