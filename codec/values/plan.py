"""Plan: turn the ordinary values of a chunk into steps, on their own lattice or on one the bound allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isopress.codec.limits import Bound, largest_ulp
from isopress.codec.values.lattice import find_lattice
from isopress.codec.values.log_transform import forward, make_knee, tolerance_in_t
from isopress.codec.values.quantiser import KNEE, LINEAR, LOG, Fields, Quantiser, Steps, uniform_quantiser
from isopress.codec.values.special_values import fill_smoothly

LARGEST_STEP = 2.0**1023  # twice a tolerance may be beyond float64
_RARE = 1 / 16


@dataclass(frozen=True)
class Plan:
    """What is to be coded: y (B, H, W) in steps, smooth at invalid points, and the way back to data."""

    quantiser: Quantiser
    y: Fields
    snap: bool  # y holds integers, which must come back exactly
    valid: np.ndarray | None = None  # (B, H, W) bool: which points matter; None for all


def make_plan(
    x: np.ndarray, valid: np.ndarray | None, bound: Bound | Sequence[Bound], tolerance: float | np.ndarray | None
) -> Plan | None:
    """Return how to code `x` in steps, or None if only a lossless coding makes sense.

    Parameters
    ----------
    x : ndarray, (B, H, W), float32 or float64
        Values, all finite; those not `valid` repeat one that is.
    valid : ndarray, (B, H, W), bool, or None
        Where values are to be coded; None for everywhere.
    bound : Bound, or one of mode abs for each of several variables
        Says how `tolerance` came about. Of several variables come first the fields of the first one, then those of
        the second, and so on; each has steps of its own.
    tolerance : float, ndarray (B, H, W), or None
        Allowed |x - x_hat| in data units; None for exact.
    """
    if isinstance(bound, Bound):
        return _own_plan(x, valid, bound, tolerance, on_lattice=True)
    own = np.split(np.arange(len(x)), len(bound))
    for on_lattice in (True, False):
        found = []
        for at, b in zip(own, bound, strict=True):
            ok = None if valid is None else valid[at]
            plan = _own_plan(x[at], ok, b, b.resolve(x), on_lattice=on_lattice)
            if plan is not None:
                found.append(plan)
        if len(found) == len(own) and len({plan.snap for plan in found}) == 1:
            fields = len(own[0])
            offset = np.concatenate([np.broadcast_to(plan.quantiser.offset, fields) for plan in found])
            step = np.concatenate([np.broadcast_to(plan.quantiser.step, fields) for plan in found])
            return Plan(Quantiser(offset, step), np.concatenate([p.y[:] for p in found]), found[0].snap, valid)
    return None


def _own_plan(
    x: np.ndarray, valid: np.ndarray | None, bound: Bound, tolerance: float | np.ndarray | None, *, on_lattice: bool
) -> Plan | None:
    """Return the plan of one variable; `on_lattice` says whether the values' own lattice may be used."""
    widest = tolerance if isinstance(tolerance, float) else 0.0
    if isinstance(tolerance, np.ndarray):
        widest = float(np.max(tolerance, where=np.True_ if valid is None else valid, initial=0.0))
    lattice = find_lattice(x, valid, least=min(2 * widest, LARGEST_STEP)) if on_lattice else None
    if lattice is not None:
        return _plan(lattice, x, valid, snap=True)
    if tolerance is None:
        return None
    if bound.mode == "pointwise" and widest != bound.floor:  # else the floor rules everywhere
        return _pointwise_plan(x, valid, bound)
    step = min(2 * tolerance_after_rounding(x, widest), LARGEST_STEP)
    if not step:
        return None
    return _plan(uniform_quantiser(x, valid, step), x, valid, snap=False)


def tolerance_after_rounding(x: np.ndarray, tolerance: float) -> float:
    """Return `tolerance` less half an ulp of the largest value, the cost of rounding x_hat to the dtype.

    The smaller step costs about 0.7 * ulp / tolerance bits per value; the full step would turn some
    ulp / (4 * tolerance) of the values into exceptions of 40 bits. Where rounding takes more than half the
    tolerance of more than 1 value in 16, the result is 0: nothing is gained over lossless coding.
    """
    half_ulp = largest_ulp(x) / 2
    if half_ulp <= tolerance / 2:
        return tolerance - half_ulp
    coarse = np.abs(x) * np.finfo(x.dtype).eps > tolerance
    return tolerance / 2 if coarse.mean() <= _RARE else 0.0


def _pointwise_plan(x: np.ndarray, valid: np.ndarray | None, bound: Bound) -> Plan | None:
    value = float(bound.value or 0)
    step = 2 * tolerance_in_t(value, x.dtype)
    if not step:
        return None
    knee = None if bound.floor is None else make_knee(value, bound.floor)
    transform = LOG if knee is None else KNEE
    t = forward(x, knee)
    return _plan(uniform_quantiser(t, valid, step, transform=transform, knee=knee), t, valid, snap=False)


def _plan(quantiser: Quantiser, t: np.ndarray, valid: np.ndarray | None, *, snap: bool) -> Plan | None:
    if valid is None and quantiser.offset.size == quantiser.step.size == 1:
        steps = Steps(t, float(quantiser.offset[0]), float(quantiser.step[0]), snap)
        return Plan(quantiser, steps, snap) if np.isfinite(steps.reach()) else None
    y = quantiser.to_steps(t.astype(np.float64, copy=quantiser.transform == LINEAR))  # else t is nobody else's
    if valid is not None:
        y[~valid] = 0
    if not np.isfinite(y).all():
        return None
    if valid is not None:
        y = fill_smoothly(y, valid)
    return Plan(quantiser, np.rint(y, out=y) if snap else y, snap, valid)
