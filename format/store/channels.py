"""Which variables have the channels of a VAEformer's weights: matched by name, here where names are known.

An axis before the last two is one of channels if its coordinate holds levels, of the variable's own name, or labels
such as t850 and u10.
"""

import numpy as np

from isopress.codec.errors import ArgumentError
from isopress.codec.vaeformer.channels import ANY, Channels
from isopress.codec.vaeformer.weights import load_vaeformer
from isopress.format.source.dataset import Source


def fitting(source: Source, names: list[str], model: str) -> dict[str, tuple[str, ...]]:
    """Return the variables that the weights code, with their channels if these come in another order than there.

    Raises
    ------
    ArgumentError
        There is none; the message says of each what it lacks.
    ModelNotFoundError
        The weights are not installed.
    """
    channels = load_vaeformer(model).channels
    reasons = {name: order_or_misfit(source, name, channels) for name in names}
    found = {name: order for name, order in reasons.items() if isinstance(order, tuple)}
    if not found:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:4])
        raise ArgumentError(
            f"no variable has the channels {_listed(channels.labels)} of the weights {model!r}: {shown}"
        )
    return found


def order_or_misfit(source: Source, name: str, channels: Channels) -> tuple[str, ...] | str:
    """Return the channels of a variable, none if they come in this order, or why it does not have these channels."""
    path, _, short = name.rpartition("/")
    variable, group = source.stored(name), source.groups[path]
    if variable.ndim < 2:
        return "it has no fields"
    if len(channels.names) == 1:
        one = channels.names[0]
        return () if one == ANY or one == (short, None) else f"it is not {channels.labels[0]}"
    if variable.ndim < 3:
        return "it has no axis of channels"
    dim = str(variable.dims[-3])
    if dim not in group.variables:
        return f"its axis {dim} has no coordinate that names channels"
    found = _labels(short, np.asarray(group.variables[dim].values))
    if sorted(found) == sorted(channels.labels):
        return () if found == channels.labels else found
    return f"along {dim} it has {_listed(found)}"


def _labels(short: str, values: np.ndarray) -> tuple[str, ...]:
    if values.dtype.kind in "iuf":
        return tuple(f"{short}{level:g}" for level in values.tolist())
    return tuple(map(str, values.tolist()))


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
