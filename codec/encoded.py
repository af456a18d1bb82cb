"""EncodedChunk: a chunk as named sections of bytes, and which sections each method needs."""

from dataclasses import dataclass
from enum import IntEnum

from isopress.codec.errors import CorruptPayloadError, UnsupportedVersionError

UNPAID = 2**28  # bytes of values that any coding may stand for
PAID_BY_A_BYTE = 2**18


class Method(IntEnum):
    """How the values of a chunk are coded."""

    CONSTANT = 0  # one value for all
    LOSSLESS = 1  # stored, zstd or pcodec
    PYRAMID = 2  # the refinement pyramid
    INTEGERS = 3  # whole steps, coded like any integers
    BLOCK = 4  # pyramids that refer to each other
    LATENT = 5  # latents alone: an error to aim at, no bound
    BASED = 6  # a pyramid on top of latents
    LAYERS = 7  # payloads of boxes, one over the other: a chunk that was written in part
    VAEFORMER = 8  # latents of a VAEformer alone: an error to aim at, no bound
    ON_VAEFORMER = 9  # a pyramid on top of those


class Section(IntEnum):
    """What a section holds."""

    PARAMETERS = 1  # constant: the value's bits; pyramid and integers: the quantiser
    SPECIAL = 2  # NaN, infinities, -0.0 (and zeros)
    SIGNS = 3  # of values coded as log2|x|
    PYRAMID = 4
    INTEGERS = 5
    LOSSLESS = 6
    EXCEPTIONS = 7
    BLOCK = 8
    BOUNDS = 9  # of a joint chunk, one per entry of the first axis
    LATENT = 10
    MARGIN = 11  # by which the steps of a pyramid on latents are smaller
    LAYERS = 12
    VAEFORMER = 13


_REQUIRED = {
    Method.CONSTANT: {Section.PARAMETERS},
    Method.LOSSLESS: {Section.LOSSLESS},
    Method.PYRAMID: {Section.PARAMETERS, Section.PYRAMID},
    Method.INTEGERS: {Section.PARAMETERS, Section.INTEGERS},
    Method.BLOCK: {Section.PARAMETERS, Section.BLOCK},
    Method.LATENT: {Section.LATENT},
    Method.BASED: {Section.PARAMETERS, Section.LATENT, Section.PYRAMID, Section.MARGIN},
    Method.LAYERS: {Section.LAYERS},
    Method.VAEFORMER: {Section.VAEFORMER},
    Method.ON_VAEFORMER: {Section.PARAMETERS, Section.VAEFORMER, Section.PYRAMID, Section.MARGIN},
}
_CODED = {Section.SPECIAL, Section.SIGNS, Section.EXCEPTIONS, Section.BOUNDS}
_OPTIONAL = {
    Method.CONSTANT: {Section.SPECIAL, Section.EXCEPTIONS, Section.BOUNDS},
    Method.LOSSLESS: {Section.BOUNDS},
    Method.PYRAMID: _CODED,
    Method.INTEGERS: _CODED,
    Method.BLOCK: _CODED,
    Method.LATENT: {Section.SPECIAL},
    Method.BASED: {Section.SPECIAL, Section.BOUNDS},
    Method.LAYERS: set(),
    Method.VAEFORMER: {Section.SPECIAL},
    Method.ON_VAEFORMER: {Section.SPECIAL, Section.BOUNDS},
}
_MODELS = {
    Method.PYRAMID: 1,
    Method.BLOCK: 1,
    Method.LATENT: 1,
    Method.BASED: 2,
    Method.VAEFORMER: 1,
    Method.ON_VAEFORMER: 2,
}


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk as sections of bytes, and what was measured on its decoded values.

    Parameters
    ----------
    method : int
        One of `Method`; says which sections must be there.
    sections : tuple of (int, bytes)
        Ids are of `Section`, each at most once.
    models : tuple of bytes
        SHA-256 of the weights needed: one for methods PYRAMID, BLOCK and LATENT, latents' and pyramid's for BASED,
        whatever the payloads inside need for LAYERS; for decoding its first 16 bytes suffice.
    resolved_bound : float
        In data units (abs, range), a fraction (pointwise), 0 (lossless) or 1 (joint).
    max_error, rmse : float
        Of the decoded values over the finite points, in data units; of a joint chunk relative to the bounds.
    """

    method: int
    sections: tuple[tuple[int, bytes], ...]
    models: tuple[bytes, ...] = ()
    resolved_bound: float = 0.0
    max_error: float = 0.0
    rmse: float = 0.0

    @property
    def nbytes(self) -> int:
        """What this chunk adds to a payload: all sections, 16 bytes per model."""
        total = 16 * len(self.models)
        for _, section in self.sections:
            total += len(section)
        return total


def checked_sections(encoded: EncodedChunk) -> dict[Section, bytes]:
    """Return the sections by name, exactly those that the method needs or allows.

    Raises
    ------
    UnsupportedVersionError
        A method or section this reader does not know.
    CorruptPayloadError
        A section that is missing, repeated or foreign to the method, or not as many models as it needs.
    """
    if encoded.method not in tuple(Method):
        raise UnsupportedVersionError(f"method {encoded.method} is unknown; this reader knows 0 to {max(Method)}")
    method, found = Method(encoded.method), dict[Section, bytes]()
    for section, content in encoded.sections:
        if section not in tuple(Section):
            raise UnsupportedVersionError(f"section {section} is unknown; this reader knows 1 to {max(Section)}")
        if Section(section) in found:
            raise CorruptPayloadError(f"section {Section(section).name} is repeated")
        found[Section(section)] = content
    if missing := _REQUIRED[method] - set(found):
        raise CorruptPayloadError(f"method {method.name} needs section {min(missing).name}, which is missing")
    if foreign := set(found) - _REQUIRED[method] - _OPTIONAL[method]:
        raise CorruptPayloadError(f"section {min(foreign).name} does not belong to method {method.name}")
    models = _MODELS.get(method, 0)
    if len(encoded.models) != models and method != Method.LAYERS:
        raise CorruptPayloadError(f"method {method.name} needs {models} models, got {len(encoded.models)}")
    return found


def is_paid_for(decoded: int, coded: int) -> bool:
    """Return whether a coding of `coded` bytes may stand for `decoded` bytes of values.

    A small payload cannot make a reader allocate without limit: beyond 256 MiB every byte pays for 256 KiB, eight times
    what zstd needs for equal bytes. Writers store without loss what would break the rule.
    """
    return decoded <= UNPAID + coded * PAID_BY_A_BYTE
