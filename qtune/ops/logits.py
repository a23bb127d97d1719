"""What a supervised position costs, as a function of its logits, and the gradient of that.

Legend: C positions of a chunk, V vocabulary size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from qtune.ops.element_wise import by_triton

# Elements that are worked on at a time: on a CPU few enough to stay in its caches, on a GPU so
# many that a kernel's start costs nothing.
CPU_BLOCK = 1 << 18
GPU_BLOCK = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """-log softmax(l)[target] with l = softcap tanh(scale x / softcap) of a head's output x.

    `label_smoothing` s takes the target's probability to 1 - s and spreads s over the vocabulary;
    `z_loss` z adds z logsumexp(l)^2 (PaLM), which keeps the logits near zero.
    """

    scale: float = 1.0
    softcap: float | None = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def logits(self, raw_CV: Tensor) -> Tensor:
        """l of the head's output, in its dtype."""
        if self.scale != 1.0:
            raw_CV = raw_CV * self.scale
        if self.softcap is not None:
            raw_CV = torch.tanh(raw_CV / self.softcap) * self.softcap
        return raw_CV

    def losses(self, raw_CV: Tensor, target_C: Tensor) -> Tensor:
        """The definition: each position's loss in nats, fp32 [C]."""
        # fp32 before the softmax: a bf16 log-sum-exp over a large vocabulary loses the third digit
        logits_CV = self.logits(raw_CV.float())
        loss_C = functional.cross_entropy(
            logits_CV, target_C, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.z_loss:
            loss_C = loss_C + self.z_loss * logits_CV.logsumexp(1).square()
        return loss_C

    def losses_in_blocks(self, raw_CV: Tensor, target_C: Tensor) -> Tensor:
        """The same a block of rows at a time, so that fp32 copies stay small and near."""
        if by_triton("cross_entropy", raw_CV):
            from qtune.ops.triton import cross_entropy as kernels

            return kernels.losses(raw_CV, target_C, self)
        rows = _rows(raw_CV)
        parts = [
            self.losses(raw, target)
            for raw, target in zip(raw_CV.split(rows), target_C.split(rows), strict=True)
        ]
        return torch.cat(parts)

    def losses_and_gradient(
        self, raw_CV: Tensor, target_C: Tensor, *, factor: float
    ) -> tuple[Tensor, Tensor]:
        """`losses` without autograd, and `factor` times the gradient of their sum by x, in x's
        dtype; a block of rows at a time, so that fp32 copies stay small. Takes the place of x
        where Triton's kernels compute."""
        if by_triton("cross_entropy", raw_CV) and raw_CV.stride(-1) == 1:
            from qtune.ops.triton import cross_entropy as kernels

            losses_C = kernels.losses_and_gradient_in_place(raw_CV, target_C, self, factor=factor)
            return losses_C, raw_CV
        rows = _rows(raw_CV)
        gradient_CV = torch.empty_like(raw_CV)
        parts = [
            self._block(raw, target, gradient, factor=factor)
            for raw, target, gradient in zip(
                raw_CV.split(rows), target_C.split(rows), gradient_CV.split(rows), strict=True
            )
        ]
        return torch.cat(parts), gradient_CV

    def _block(self, raw: Tensor, target: Tensor, gradient: Tensor, *, factor: float) -> Tensor:
        x = raw.float() if raw.dtype != torch.float32 else raw.clone()
        if self.scale != 1.0:
            x.mul_(self.scale)
        if self.softcap is not None:
            x.div_(self.softcap).tanh_().mul_(self.softcap)
        top = x.amax(1, keepdim=True)
        x.sub_(top)
        target = target[:, None]
        loss = -x.gather(1, target)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * x.mean(1, True)
        sums = x.exp_().sum(1, keepdim=True)
        log_sums = sums.log()
        loss += log_sums
        slope = factor / sums
        if self.z_loss:
            log_sums += top
            loss += self.z_loss * log_sums.square()
            slope *= 1 + 2 * self.z_loss * log_sums
        x.mul_(slope)
        if self.label_smoothing:
            x.sub_(factor * self.label_smoothing / x.shape[1])
        hit = torch.full_like(loss, factor * (self.label_smoothing - 1))
        x.scatter_add_(1, target, hit)
        self._through_cap(x, raw)
        gradient.copy_(x)
        return loss[:, 0]

    def _through_cap(self, x: Tensor, raw: Tensor) -> None:
        if self.softcap is not None:  # d/du softcap tanh(u / softcap) = 1 - tanh^2
            capped = raw.float().mul_(self.scale / self.softcap).tanh_()
            x.mul_(capped.square_().neg_().add_(1.0))
        if self.scale != 1.0:
            x.mul_(self.scale)


def _rows(raw_CV: Tensor) -> int:
    elements = CPU_BLOCK if raw_CV.device.type == "cpu" else GPU_BLOCK
    return max(1, elements // raw_CV.shape[1])
