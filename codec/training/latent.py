"""Training of the latent codec: contexts, then the transformers.

As a rule that is synthesis alone, on the symbols that are coded. With a transformer in analysis too, both learn in the
stages of the CRA5 paper, and then the contexts on what analysis makes of fields; measured, that gains nothing
(benchmarks/RESULTS.md). All stages go on from checkpoints; the weights file is written anew after each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save

from isopress.codec.latent.synthesis import CorrectorConfig
from isopress.codec.latent.transforms import Transforms, restore, stored
from isopress.codec.latent.weights import KIND
from isopress.codec.training import contexts as train_contexts
from isopress.codec.training import synthesis as train_transforms
from isopress.codec.training.contexts import ContextConfig, Trainable
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.synthesis import TransformConfig

SCORE = "log2 of the rate-distortion cost"
STAGES = ("contexts", "transforms", "refined")


@dataclass(frozen=True)
class VAEformerConfig:
    """Everything that shapes a training; `minutes` of wall time on an idle machine, shared out to the stages."""

    minutes: float = 120.0
    analysis: bool = False
    corrector: CorrectorConfig = field(default_factory=CorrectorConfig)
    widths: tuple[int, ...] = (96, 64)
    threads: int = 2
    seed: int = 0

    @property
    def parts(self) -> tuple[float, float, float]:
        """What part of the time each stage takes."""
        return (0.35, 0.5, 0.15) if self.analysis else (0.4, 0.6, 0.0)


CONFIGS = {
    "small": VAEformerConfig(),
    "base": VAEformerConfig(
        minutes=1200.0,
        corrector=CorrectorConfig(channels=96, dim=256, heads=8, blocks=8),
        widths=(160, 96),
    ),
}


@dataclass
class Progress:
    """State of a training: seconds so far and (seconds, score) of every validation, all stages on one scale."""

    seconds: float = 0.0
    validation: list[tuple[float, float]] = field(default_factory=list)


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    out: Path,
    config: VAEformerConfig,
    *,
    resume: bool = False,
    init: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Train a model and write it to `out` (safetensors); checkpoints of the stages lie beside it.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from.
    resume : bool
        Go on from the checkpoints.
    init : Path, optional
        Weights (safetensors) to start from: contexts of the same widths, transformers of any shape.
    """
    torch.set_num_threads(config.threads)
    minutes = dict(zip(STAGES, (part * config.minutes for part in config.parts), strict=True))
    checkpoint = {stage: out.with_suffix(f".{stage}.ckpt") for stage in STAGES}
    going_on = {stage: resume and path.exists() for stage, path in checkpoint.items()}
    curve = _Curve(report)
    what, transforms = Trainable.build(config.widths), Transforms(config.corrector)
    if init is not None:
        tensors = load_file(init)
        with safe_open(init, "np") as file:
            design = json.loads(file.metadata()["corrector"])
        what, transforms = Trainable.restore(tensors, config.widths), restore(design, tensors)
    contexts = ContextConfig(minutes["contexts"], config.widths, threads=config.threads, seed=config.seed)
    what, _ = train_contexts.train(
        fields, validation, checkpoint["contexts"], contexts, start=what, resume=going_on["contexts"],
        report=curve.stage(),
    )  # fmt: skip
    write(out, what, transforms)
    around = TransformConfig(minutes["transforms"], config.corrector, seed=config.seed)
    if not config.analysis:
        around = replace(around, variational=0.0, rate_distortion=0.0)
    transforms, _ = train_transforms.train(
        fields, validation, what.model(), checkpoint["transforms"], around, start=transforms,
        resume=going_on["transforms"], report=curve.stage(),
    )  # fmt: skip
    write(out, what, transforms)
    if not config.analysis:
        return curve.progress
    again = replace(contexts, minutes=minutes["refined"], learning_rate=contexts.learning_rate / 3, rounded_from=0.0)
    what, _ = train_contexts.train(
        fields, validation, checkpoint["refined"], again, start=what, resume=going_on["refined"],
        analyse=lambda x: transforms.analyse(x, False), report=curve.stage(),
    )  # fmt: skip
    write(out, what, transforms)
    return curve.progress


def write(out: Path, contexts: Trainable, transforms: Transforms) -> None:
    """Write a weights file."""
    corrector, floats = stored(transforms)
    tensors = {name: np.ascontiguousarray(value) for name, value in (contexts.tensors() | floats).items()}
    out.write_bytes(save(tensors, metadata={"kind": KIND, "synthesis": json.dumps(corrector)}))


class _Curve:
    """Joins the curves of the stages: each begins where the one before it ended."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.progress, self._report = Progress(), report

    def stage(self) -> Callable[[train_contexts.Progress | train_transforms.Progress], None]:
        """Return what a new stage reports to."""
        before, earlier = self.progress.seconds, list(self.progress.validation)

        def told(state: train_contexts.Progress | train_transforms.Progress) -> None:
            shift = earlier[-1][1] - state.validation[0][1] if earlier else 0.0
            self.progress.seconds = before + state.seconds
            self.progress.validation = earlier + [(before + s, score + shift) for s, score in state.validation]
            self._report(self.progress)

        return told
