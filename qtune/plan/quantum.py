"""How many numbers generate n x K orthonormal columns, in either form of Quantum-PEFT.

Pauli: a circuit on 2^q rows has (2 layers + 1) q - 2 layers angles. Other sizes are split into
powers of two, largest first, one circuit each; between neighbours an angle for each column.
Taylor: a strictly lower-triangular n x k, nk - k(k+1)/2 numbers, k columns of the K filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import UsageError

if TYPE_CHECKING:
    from qtune.recipe.methods import QuantumConfig


def powers_of_two(size: int) -> list[int]:
    """The powers of two that add up to a size, largest first."""
    return [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]


def circuit_angles(block: int, layers: int) -> int:
    """Angles of the circuit on a power of two."""
    qubits = block.bit_length() - 1
    return (2 * layers + 1) * qubits - 2 * layers if qubits else 0


def couplings(size: int, rank: int) -> list[int]:
    """Angles between each block and the next: one a column, as far as the smaller has rows."""
    return [min(rank, block) for block in powers_of_two(size)[1:]]


def generators(config: QuantumConfig, size: int) -> int:
    """Numbers that generate the columns on one side of a linear."""
    if config.form == "taylor":
        filled = filled_columns(config)
        return size * filled - filled * (filled + 1) // 2
    circuits = sum(circuit_angles(block, config.circuit_layers) for block in powers_of_two(size))
    return circuits + sum(couplings(size, config.rank))


def filled_columns(config: QuantumConfig) -> int:
    """Columns of the Taylor form's triangle that are not zero."""
    return config.rank if config.intrinsic_rank is None else config.intrinsic_rank


def kept_bytes(config: QuantumConfig, size: int) -> int:
    """What making the columns on one side keeps for the backward pass, columns included.

    Pauli: the rows before each gate, in fp32. Taylor: both factors of S and the unit vectors in
    fp64, and where the numbers stand in the triangle.
    """
    made = 4 * size * config.rank
    if config.form == "taylor":
        filled = filled_columns(config)
        return made + size * (48 * filled + 8 * max(filled, config.rank))
    for block in powers_of_two(size):
        qubits = block.bit_length() - 1
        gates = (qubits + 1) // 2 + config.circuit_layers * max(0, qubits - 1)
        made += 4 * gates * block * config.rank
    return made


def refuse_rank(config: QuantumConfig, size: int) -> None:
    """`UsageError` when a side of a linear has not so many orthonormal columns."""
    if config.form == "taylor" and filled_columns(config) > config.rank:
        raise UsageError(
            f"{config.intrinsic_rank} is above method.rank, {config.rank}",
            place="method.intrinsic_rank",
        )
    most = size if config.form == "taylor" else powers_of_two(size)[0]
    if config.rank > most:
        raise UsageError(
            f"{config.rank} orthonormal columns of {size} numbers: at most {most} in this form",
            place="method.rank",
            hint="lower it, or leave the small linears out (method.exclude_modules)",
        )
