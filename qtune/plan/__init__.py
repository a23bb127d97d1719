"""Recipe + Machine + ModelShape -> Plan, before anything is loaded. No torch."""

from qtune.plan.adapters import trainable_parameters
from qtune.plan.configuration import (
    UnknownFamilyError,
    read_config,
    shape_before_download,
    shape_of,
    shape_of_model,
    stored_quantization,
)
from qtune.plan.devices import alike, card
from qtune.plan.machine import Machine, gpus
from qtune.plan.memory import LOSS_CHUNK, loss_chunk_size
from qtune.plan.plan import PAGED_OUT, Decision, MemoryItem, Plan, Remedy, Switch
from qtune.plan.planner import make
from qtune.plan.positions import positions_of
from qtune.plan.rows import RowCount, count_rows
from qtune.plan.shape import LinearShape, ModelShape, TensorShape
from qtune.plan.steps import Steps, schedule
from qtune.plan.suggestion import Suggestion, suggestion
from qtune.plan.teacher import teacher_quantization
from qtune.plan.vision import FAMILIES as OF_FIXED_SIZE
from qtune.plan.vision import refuse_lengths, sees_images
from qtune.plan.weights import refuse_clash
from qtune.sizes import duration, human, parse_size

__all__ = [
    "LOSS_CHUNK",
    "OF_FIXED_SIZE",
    "PAGED_OUT",
    "Decision",
    "LinearShape",
    "Machine",
    "MemoryItem",
    "ModelShape",
    "Plan",
    "Remedy",
    "RowCount",
    "Steps",
    "Suggestion",
    "Switch",
    "TensorShape",
    "UnknownFamilyError",
    "alike",
    "card",
    "count_rows",
    "duration",
    "gpus",
    "human",
    "loss_chunk_size",
    "make",
    "parse_size",
    "positions_of",
    "read_config",
    "refuse_clash",
    "refuse_lengths",
    "schedule",
    "sees_images",
    "shape_before_download",
    "shape_of",
    "shape_of_model",
    "stored_quantization",
    "suggestion",
    "teacher_quantization",
    "trainable_parameters",
]
