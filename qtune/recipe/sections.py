"""A whole recipe: its sections, each with its default."""

from __future__ import annotations

from qtune.recipe.inputs import DataSection, LossSection, ModelSection, QuantizationSection
from qtune.recipe.methods import LoraConfig, MethodConfig
from qtune.recipe.results import (
    CheckpointSection,
    EvalSection,
    GatesSection,
    LoggingSection,
    MergeSection,
    PinsSection,
)
from qtune.recipe.section import Section
from qtune.recipe.steps import (
    DistributedSection,
    MemorySection,
    OptimSection,
    TrainSection,
    WatchdogSection,
)


class Recipe(Section):
    """A whole recipe."""

    model: ModelSection
    data: DataSection
    quantization: QuantizationSection = QuantizationSection()
    method: MethodConfig = LoraConfig()
    loss: LossSection = LossSection()
    optim: OptimSection = OptimSection()
    train: TrainSection = TrainSection()
    memory: MemorySection = MemorySection()
    distributed: DistributedSection = DistributedSection()
    watchdog: WatchdogSection = WatchdogSection()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    gates: GatesSection = GatesSection()
    logging: LoggingSection = LoggingSection()
    merge: MergeSection = MergeSection()
    pins: PinsSection = PinsSection()
