"""Orthonormal columns [n, K] by construction, from few numbers: a quantum circuit's, or exp(S)'s.

Sizes and how many numbers: `qtune.plan.quantum`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from qtune.plan.quantum import circuit_angles, couplings, powers_of_two


def circuit_columns(angles: Tensor, *, size: int, rank: int, layers: int) -> Tensor:
    """The first `rank` columns of the circuit of each power of two in `size`, coupled.

    The unit vectors of the first block are shared out over the blocks by plane rotations, then
    each block's circuit turns its rows: both steps keep columns orthonormal.
    """
    blocks = powers_of_two(size)
    sizes = [*couplings(size, rank), *(circuit_angles(block, layers) for block in blocks)]
    parts = list(angles.split(sizes))
    shares = parts[: len(blocks) - 1]
    unit = torch.eye(rank, device=angles.device, dtype=angles.dtype)
    pieces = _spread(unit, shares, blocks)
    turned = [
        _circuit(piece, part, layers)
        for piece, part in zip(pieces, parts[len(blocks) - 1 :], strict=True)
    ]
    return torch.cat(turned)


def start_angles(*, size: int, rank: int, layers: int, generator: torch.Generator) -> Tensor:
    """Angles of circuits at random over the circle; couplings that give blocks what they weigh."""
    blocks = powers_of_two(size)
    parts = []
    rest = float(size)
    for block, count in zip(blocks, couplings(size, rank), strict=False):
        parts.append(torch.full((count,), 2 * math.asin(math.sqrt(1 - block / rest))))
        rest -= block
    number = sum(circuit_angles(block, layers) for block in blocks)
    parts.append(2 * math.pi * torch.rand(number, generator=generator))
    return torch.cat(parts)


def _spread(held: Tensor, shares: list[Tensor], blocks: list[int]) -> list[Tensor]:
    """Rows [K, K] on the first rows of each block: each hands a part of its own on to the next."""
    pieces = []
    for block, share in zip(blocks, shares, strict=False):
        half, count = (share / 2).unsqueeze(1), len(share)
        kept = torch.cat([held[:count] * half.cos(), held[count:]])
        pieces.append(_padded(kept, block))
        held = held[:count] * half.sin()
    return [*pieces, _padded(held, blocks[-1])]


def _padded(rows: Tensor, size: int) -> Tensor:
    return functional.pad(rows, (0, 0, 0, size - len(rows)))


def _circuit(x: Tensor, angles: Tensor, layers: int) -> Tensor:
    """RY on each qubit, then `layers` times CZ and RY on pairs (0,1) (2,3).., and (1,2) (3,4)..

    x [2^q, K]; the simplified two-design of Cerezo et al. 2021. All gates of a kind are made at
    once, then each pair of qubits turns in one product.
    """
    qubits = len(x).bit_length() - 1
    gates = _rotations(angles)
    first, last, rest = gates.split([qubits // 2 * 2, qubits % 2, len(gates) - qubits])
    for number, gate in enumerate(_pairs(first)):
        x = _turn(x, gate, 2 * number)
    for gate in last:
        x = _turn(x, gate, qubits - 1)
    flip = torch.tensor([1.0, 1.0, 1.0, -1.0]).to(x)
    places = [at for odd in (0, 1) for at in range(odd, qubits - 1, 2)] * layers
    for place, gate in zip(places, _pairs(rest) * flip, strict=True):
        x = _turn(x, gate, place)
    return x


def _rotations(angles: Tensor) -> Tensor:
    """RY(t) = [[cos t/2, -sin t/2], [sin t/2, cos t/2]] of each angle, [count, 2, 2]."""
    cosine, sine = (angles / 2).cos(), (angles / 2).sin()
    return torch.stack([cosine, -sine, sine, cosine], dim=1).reshape(-1, 2, 2)


def _pairs(gates: Tensor) -> Tensor:
    """The Kronecker products of the first with the second, the third with the fourth.."""
    left, right = gates[0::2], gates[1::2]
    return torch.einsum("pij,pkl->pikjl", left, right).reshape(-1, 4, 4)


def _turn(x: Tensor, gate: Tensor, place: int) -> Tensor:
    """A gate on the qubits from `place` on: x as [qubits before, these, those after x K]."""
    return torch.matmul(gate, x.reshape(1 << place, len(gate), -1)).reshape(x.shape)


def exponential_columns(numbers: Tensor, *, size: int, rank: int, filled: int) -> Tensor:
    """The first `rank` columns of exp(S), S = [B 0] - [B 0]^T, B [size, filled] lower-triangular.

    S = L R^T with L = [B, -E], R = [E, B], so exp(S) = I + L phi(R^T L) R^T, phi(M) the series of
    M^p/(p+1)!: Taylor's of a small matrix, in fp64 and with squarings; no n x n is made.
    """
    rows, columns = torch.tril_indices(size, filled, offset=-1, device=numbers.device)
    lower = numbers.new_zeros(size, filled, dtype=torch.float64)
    lower = lower.index_put((rows, columns), numbers.double())
    unit = torch.eye(size, max(rank, filled), device=numbers.device, dtype=torch.float64)
    left = torch.cat([lower, -unit[:, :filled]], dim=1)
    right = torch.cat([unit[:, :filled], lower], dim=1)
    change = left @ (_series(right.t() @ left) @ (right.t() @ unit[:, :rank]))
    return (unit[:, :rank] + change).to(numbers.dtype)


def _series(matrix: Tensor) -> Tensor:
    """The sum of M^p/(p+1)!: the upper right of exp([[M, I], [0, 0]])."""
    count = len(matrix)
    one = torch.eye(count, device=matrix.device, dtype=matrix.dtype)
    above = torch.cat([matrix, one], dim=1)
    whole = torch.cat([above, torch.zeros_like(above)])
    raised: Tensor = torch.linalg.matrix_exp(whole)
    return raised[:count, count:]


def start_triangle(numbers: int, *, size: int, generator: torch.Generator) -> Tensor:
    """Normal numbers that turn each column by about a right angle, away from the unit vectors."""
    return torch.randn(numbers, generator=generator) * (math.pi / 2 / math.sqrt(size))
