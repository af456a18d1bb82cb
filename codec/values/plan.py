"""Plan: turn the ordinary values of a chunk into steps, on their own lattice or on one the bound allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isopress.codec.limits import Bound, largest_ulp
from isopress.codec.values.fill import fill_smoothly
from isopress.codec.values.lattice import find_lattice
from isopress.codec.values.log_transform import forward, make_knee, tolerance_in_t
from isopress.codec.values.quantiser import KNEE, LOG, Quantiser, uniform_quantiser

_RARE = 1 / 16


@dataclass(frozen=True)
class Plan:
    """What is to be coded: y in steps, (B, H, W) float64, smooth at invalid points, and the way back to data."""

    quantiser: Quantiser
    y: np.ndarray
    snap: bool  # y holds integers, which must come back exactly


def make_plan(
    x: np.ndarray,
    valid: np.ndarray | None,
    bound: Bound,
    tolerance: float | np.ndarray | None,
    *,
    on_lattice: bool = True,
) -> Plan | None:
    """Return how to code `x` in steps, or None if only a lossless coding makes sense.

    Parameters
    ----------
    x : ndarray, (B, H, W), float32 or float64
        Values, all finite; those not `valid` repeat one that is.
    valid : ndarray, (B, H, W), bool, or None
        Where values are to be coded; None for everywhere.
    bound : Bound
        Says how `tolerance` came about.
    tolerance : float, ndarray (B, H, W), or None
        Allowed |x - x_hat| in data units; None for exact.
    on_lattice : bool
        Whether the values' own lattice may be used.
    """
    widest = _widest(tolerance, valid)
    lattice = find_lattice(x, valid, least=2 * widest) if on_lattice else None
    if lattice is not None:
        return _plan(lattice, x.astype(np.float64), valid, snap=True)
    if tolerance is None:
        return None
    if bound.mode == "pointwise" and widest != bound.floor:  # else the floor rules everywhere
        return _pointwise_plan(x, valid, bound)
    step = 2 * tolerance_after_rounding(x, widest)
    if not step:
        return None
    t = x.astype(np.float64)
    return _plan(uniform_quantiser(t, valid, step), t, valid, snap=False)


def make_joint_plan(x: np.ndarray, valid: np.ndarray | None, bounds: Sequence[Bound]) -> Plan | None:
    """Return one plan for several variables, each with an absolute bound and so with steps of its own.

    Parameters
    ----------
    x : ndarray, (B, H, W), float32 or float64
        As in `make_plan`; the fields of the first variable, then those of the second, and so on.
    valid : ndarray, (B, H, W), bool, or None
    bounds : one per variable; B is a multiple of their number.
    """
    own = np.split(np.arange(len(x)), len(bounds))
    for on_lattice in (True, False):
        plans = [
            make_plan(x[at], None if valid is None else valid[at], b, b.resolve(x), on_lattice=on_lattice)
            for at, b in zip(own, bounds, strict=True)
        ]
        found = [plan for plan in plans if plan is not None]
        if len(found) == len(plans) and len({plan.snap for plan in found}) == 1:
            fields = len(own[0])
            offset, step = (
                np.concatenate([np.broadcast_to(getattr(p.quantiser, name), fields) for p in found])
                for name in ("offset", "step")
            )
            return Plan(Quantiser(offset, step), np.concatenate([p.y for p in found]), found[0].snap)
    return None


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


def _widest(tolerance: float | np.ndarray | None, valid: np.ndarray | None) -> float:
    if not isinstance(tolerance, np.ndarray):
        return tolerance or 0.0
    return float(np.max(tolerance, where=np.True_ if valid is None else valid, initial=0.0))


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
    y = quantiser.to_steps(t)
    if valid is not None:
        y[~valid] = 0
    if not np.isfinite(y).all():
        return None
    if valid is not None:
        y = fill_smoothly(y, valid)
    return Plan(quantiser, np.rint(y) if snap else y, snap)
