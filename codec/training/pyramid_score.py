"""What weights of the pyramid cost where: ideal bits by level and phase, on crops that are the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isopress.codec.bounded.pyramid import PyramidModel
from isopress.codec.training.pyramid import validation_crops
from isopress.codec.training.pyramid_pool import Crop, Field, bits_of_phases

LEVELS = 4  # told apart; coarser ones are counted together with the last
CROP = 60_000  # values


@dataclass
class Cost:
    """Points, and the bits that their symbols take."""

    points: int = 0
    bits: float = 0.0


Costs = dict[tuple[int, str], Cost]  # by level and phase


def score(models: Sequence[PyramidModel], fields: Sequence[Field], points: int) -> list[Costs]:
    """Return what every one of some models takes for the same crops of `points` values in all.

    Crops are of several fields where all models take references.
    """
    references = all(model.takes_references for model in models)
    crops = validation_crops(fields, CROP, points, references=references)
    return [_costs(model, crops) for model in models]


def _costs(model: PyramidModel, crops: Sequence[Crop]) -> Costs:
    costs = Costs()
    for crop in crops:
        for level, phase, points, bits in bits_of_phases(crop, model.networks):
            cost = costs.setdefault((min(level, LEVELS - 1), phase), Cost())
            cost.points += points
            cost.bits += bits
    return costs
