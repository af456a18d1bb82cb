"""The few kinds of error isopress raises; every message names the value, what is allowed and the remedy."""


class IsopressError(Exception):
    """Base of every error that isopress raises on purpose."""


class ArgumentError(IsopressError, ValueError):
    """An argument, array or configuration is not one the codec takes."""


class BoundError(IsopressError):
    """The promised error bound is not kept."""


class ModelNotFoundError(IsopressError, LookupError):
    """A payload or call names weights that are not installed."""


class PayloadError(IsopressError, ValueError):
    """Bytes cannot be decoded; the subclasses say why."""


class ForeignPayloadError(PayloadError):
    """The bytes are not an isopress payload at all."""


class TruncatedPayloadError(PayloadError):
    """The payload ends before its header says it should."""


class CorruptPayloadError(PayloadError):
    """A checksum or an internal consistency check failed."""


class UnsupportedVersionError(PayloadError):
    """The payload was written by a newer isopress, or uses a feature this reader lacks."""


class WorkerLostError(IsopressError):
    """A process that worked for this one has ended, or cannot be reached; what it had finished is not lost."""
