"""What compressing a source will give and take, from samples: bytes, ratio, time, with an interval.

plan_variables -> survey (fields: range, missing values) -> samples (pieces, coded for real) -> Estimate
"""

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Target
from isopress.format import api
from isopress.format.payload import inspect
from isopress.format.report.estimate_records import Estimate, VariableEstimate
from isopress.format.report.pieces import fields_of, pieces
from isopress.format.report.planned import planned
from isopress.format.settings import Settings
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.selection import as_request
from isopress.format.source.sentinels import Sketch, find_sentinels, sketch
from isopress.format.store.plan import VariablePlan, Wishes, codec_settings, create_store, judge, plan_variables
from isopress.format.zarr.chunk_objects import Region
from isopress.format.zarr.groups import nbytes_on_disk, quiet_zarr

Array = np.ndarray[Any, Any]

SECONDS = 10.0  # for sampling
_SURVEYED = 2**24  # values of a variable that are read to learn its range and its missing values
_PIECE_VALUES = (2**17, 2**20)  # least and most values of a piece; chunks that are no larger are coded whole
_GOOD_ENOUGH = 0.01  # of all bytes: no more samples when the interval is narrower
_STUDENT = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)  # 90 % of Student's t, by degrees of freedom
_ONE_SAMPLE = 0.3  # of the bytes: half the interval when there is only one sample
_CUT = 0.03  # the same for what cutting chunks into pieces does, once corrected
_TARGET = 0.03  # and for a ratio that was asked for
_ROOT_NBYTES, _ACHIEVED_NBYTES = 200, 1000  # of attributes that are written in the end: of the store, of each variable
_READS = 2  # of every value of a bounded variable: survey and conversion


@dataclass(frozen=True)
class _Sample:
    """One piece that was coded: its values, its bytes, the RMSE, seconds to read (for as many values) and to encode.

    Reading may be waiting; encoding is counted in seconds of a core, however busy the machine is.
    """

    values: int
    nbytes: int
    rmse: float
    read_seconds: float
    encode_seconds: float


@dataclass(frozen=True)
class _Costs:
    """What cutting and coding chunks costs, learned from one piece and its halves.

    `edge` is the part of the bytes of a piece that a whole chunk would not have, `call` the seconds that coding takes
    however few values there are, `decode` the seconds of decoding as a part of those of encoding.
    """

    edge: float = 0.0
    call: float = 0.0
    decode: float = 0.5


@dataclass
class _Sampler:
    """The samples of one variable so far, and where the next one comes from."""

    source: Source
    plan: VariablePlan
    wishes: Wishes
    regions: Iterator[Region]
    samples: list[_Sample] = field(default_factory=list)
    complete: bool = False
    costs: _Costs | None = None

    @property
    def mode(self) -> str:
        """Mode of the limit; variables of one mode cost alike."""
        return self.plan.bound.mode if self.plan.bound else "exact"

    @property
    def values(self) -> int:
        """Of the whole variable."""
        return int(self.source.stored(self.plan.name).size)

    @property
    def nbytes(self) -> float:
        """Bytes of the whole variable, judging by the samples."""
        if isinstance(self.plan.bound, Target) and self.plan.bound.ratio is not None:
            itemsize = self.source.variable(self.plan.name, lossy=True).dtype.itemsize
            return self.values * float(itemsize) / self.plan.bound.ratio
        sampled = sum(sample.values for sample in self.samples)
        rate = sum(sample.nbytes for sample in self.samples) / max(sampled, 1)
        return rate * self.values * (1 - (self.costs.edge if self.costs else 0.0))

    @property
    def half_width(self) -> float:
        """Half of the interval that holds the true size nine times of ten; infinite without a sample."""
        if not self.samples:
            return math.inf
        if self.complete:
            return 0.0
        if isinstance(self.plan.bound, Target) and self.plan.bound.ratio is not None:
            return _TARGET * self.nbytes
        if len(self.samples) == 1:
            return _ONE_SAMPLE * self.nbytes
        rates = np.array([sample.nbytes / sample.values for sample in self.samples])
        freedom = len(rates) - 1
        student = _STUDENT[min(freedom, len(_STUDENT)) - 1]
        unseen = math.prod(1 - sample.values / self.values for sample in self.samples)  # pieces may overlap
        spread = student * float(rates.std(ddof=1) / rates.mean()) * math.sqrt(unseen / len(rates))
        return (spread + _CUT * unseen) * self.nbytes

    def step(self, *, costs: bool) -> None:
        """Code one more piece; find out what it `costs` to cut and code pieces, if that is not known yet."""
        region = next(self.regions, None)
        if region is None:
            self.complete = True
            return
        start = time.perf_counter()
        x = self.source.read(self.plan.name, region, lossy=self.plan.bound is not None)
        read = time.perf_counter() - start
        start = time.process_time()
        payload, rmse = self._encode(x)
        encode = time.process_time() - start
        touched = _touched(region, self.source.chunks(self.plan.name), self.source.stored(self.plan.name).shape)
        self.samples.append(_Sample(x.size, len(payload), rmse, read * x.size / touched, encode))
        if costs and self.costs is None and self.plan.bound is not None:
            self.costs = self._costs_of(x, payload, encode)

    def _costs_of(self, x: Array, payload: bytes, encode: float) -> _Costs:
        start = time.process_time()
        api.decompress(payload)
        decode = (time.process_time() - start) / max(encode, 1e-6)
        width, whole = x.shape[-1], self.plan.chunks[-1]
        if width < 2:
            return _Costs(decode=decode)
        start = time.process_time()
        nbytes = sum(len(self._encode(x[..., half])[0]) for half in (slice(width // 2), slice(width // 2, None)))
        call = max(0.0, min(time.process_time() - start - encode, encode))
        return _Costs(min(0.2, max(0.0, nbytes / len(payload) - 1)) * (1 - min(1.0, width / whole)), call, decode)

    def _encode(self, x: Array) -> tuple[bytes, float]:
        """Return payload and RMSE of values, coded as the store would code them."""
        if self.plan.bound is None:
            return _zarr_bytes(x), 0.0
        payload = api.encode(x, self._settings)
        return payload, inspect(payload).rmse

    @property
    def _settings(self) -> Settings:
        assert self.plan.bound is not None
        return Settings(**codec_settings(self.plan.bound, self.wishes))

    def result(self) -> VariableEstimate:
        """Return the figures of the variable."""
        half = self.half_width
        sampled = max(sum(sample.values for sample in self.samples), 1)
        squares = sum(sample.values * sample.rmse**2 for sample in self.samples)
        return VariableEstimate(
            planned(self.source, self.plan, self.wishes),
            stored_nbytes=round(self.nbytes),
            low=round(max(0.0, self.nbytes - half)),
            high=round(self.nbytes + half),
            rmse=math.sqrt(squares / sampled) if self.plan.bound is not None else None,
            core_seconds=self._core_seconds(),
            sampled=min(1.0, sampled / max(self.values, 1)),
        )

    def _core_seconds(self) -> float:
        """Seconds of one core for reading, encoding and decoding all chunks."""
        sampled = max(sum(sample.values for sample in self.samples), 1)
        read = sum((sample.read_seconds for sample in self.samples), 0.0)
        encode = sum((sample.encode_seconds for sample in self.samples), 0.0)
        if self.plan.bound is None:
            return self.values * (read + 2 * encode) / sampled
        costs = self.costs or _Costs()
        per_value = max(0.0, encode - costs.call * len(self.samples)) / sampled
        shape = self.source.stored(self.plan.name).shape
        chunks = math.prod(-(-size // step) for size, step in zip(shape, self.plan.chunks, strict=True))
        coding = (chunks * costs.call + self.values * per_value) * (1 + costs.decode)
        return coding + _READS * self.values * read / sampled


def estimate(
    source: str | Sequence[str] | Request, wishes: Wishes | None = None, *, jobs: int = 1, seconds: float = SECONDS
) -> Estimate:
    """Return what compressing a source will give and take, with intervals that hold nine times of ten.

    Every variable is sampled at least once, however long that takes; then those whose size is least certain, until
    `seconds` have passed. Small sources are coded completely.

    Parameters
    ----------
    source : str, sequence of str or Request
        As `write` takes it.
    wishes : Wishes, optional
        Limits, preset, chunks.
    jobs : int
        Number of processes that the conversion will have.
    seconds : float
        Time for sampling.

    Raises
    ------
    ArgumentError
        The source cannot be read, or an error, chunk or effort does not fit it.
    """
    asked = as_request(source)
    with located(asked) as request, open_source(request) as opened:
        return estimate_source(opened, ", ".join(asked.paths), wishes or Wishes(), jobs=jobs, seconds=seconds)


def estimate_source(source: Source, path: str, wishes: Wishes, *, jobs: int = 1, seconds: float = SECONDS) -> Estimate:
    """Return the estimate of an open source; `path` is what it is called."""
    if jobs < 1 or not seconds > 0:
        raise ArgumentError(f"jobs is at least 1 and seconds more than 0, got {jobs} and {seconds}")
    start = time.monotonic()
    plans, warnings = survey(source, plan_variables(source, wishes), seconds / 4)
    samplers = samplers_of(source, plans, wishes, seconds)
    while (sampler := _next(samplers)) and (not sampler.samples or time.monotonic() - start < seconds):
        known = {other.mode for other in samplers if other.costs}
        sampler.step(costs=sampler.mode not in known and time.monotonic() - start < seconds / 2)
    _share_costs(samplers)
    by_name = {sampler.plan.name: sampler.result() for sampler in samplers}
    rest = [plan for plan in plans if plan.name not in by_name]
    skeleton = _skeleton_nbytes(source, plans, wishes)
    exact = [_written_at_once(source, plan, wishes) for plan in rest]
    by_name |= {variable.plan.name: variable for variable in exact}
    metadata = skeleton - sum(variable.stored_nbytes for variable in exact)
    return Estimate(
        path,
        tuple(by_name[plan.name] for plan in plans),
        metadata_nbytes=max(0, metadata),
        jobs=jobs,
        seconds=time.monotonic() - start,
        warnings=(*source.warnings, *warnings),
    )


def survey(source: Source, plans: Sequence[VariablePlan], seconds: float) -> tuple[list[VariablePlan], list[str]]:
    """Return the plans with mode range turned into abs by the range of some fields, and what is unusual about them."""
    surveyed, warnings = [], []
    wanted = [plan for plan in plans if plan.asked and plan.asked.mode != "lossless"]
    for plan in plans:
        if plan in wanted:
            variable = source.variable(plan.name, lossy=True)
            findings = find_sentinels(_look(source, plan, seconds / len(wanted)), variable.dtype)
            plan = plan.resolved(findings)
            warnings += judge(replace(plan, by_preset=False), findings, variable.attrs)
        surveyed.append(plan)
    return surveyed, warnings


def samplers_of(source: Source, plans: Sequence[VariablePlan], wishes: Wishes, seconds: float) -> list[_Sampler]:
    """Return a sampler for every variable that is converted in pieces."""
    streamed = [plan for plan in plans if plan.streamed and source.stored(plan.name).size]
    least, most = _PIECE_VALUES
    speed = encoding_speed(source, streamed, wishes)
    values = int(min(most, max(least, speed * seconds / (5 * max(len(streamed), 1)))))
    return [
        _Sampler(source, plan, wishes, pieces(source.stored(plan.name).shape, plan.chunks, values)) for plan in streamed
    ]


def encoding_speed(source: Source, plans: Sequence[VariablePlan], wishes: Wishes) -> float:
    """Return values per second that this machine encodes now, from a small piece of the first variable with a limit.

    What coding needs is loaded, before time is taken.
    """
    for plan in plans:
        if plan.bound is not None:
            x = source.read(plan.name, next(pieces(source.stored(plan.name).shape, plan.chunks, 2**15)), lossy=True)
            settings = Settings(**codec_settings(plan.bound, wishes))
            api.encode(x[..., :16], settings)
            start = time.perf_counter()
            api.encode(x, settings)
            return x.size / (time.perf_counter() - start)
    return float(_PIECE_VALUES[1])


def _next(samplers: Sequence[_Sampler]) -> _Sampler | None:
    """Return the sampler whose variable is least certain; None when all is known well enough."""
    unsure = [sampler for sampler in samplers if not sampler.complete]
    total = sum(sampler.nbytes for sampler in samplers if sampler.samples)
    if sum(sampler.half_width for sampler in unsure) <= _GOOD_ENOUGH * total:
        return None
    return max(unsure, key=lambda sampler: sampler.half_width)


def _share_costs(samplers: Sequence[_Sampler]) -> None:
    """Give every variable the costs that one of its mode has shown."""
    known = {sampler.mode: sampler.costs for sampler in samplers if sampler.costs}
    for sampler in samplers:
        sampler.costs = known.get(sampler.mode)


def _look(source: Source, plan: VariablePlan, seconds: float) -> Sketch:
    """Return what some fields of a variable are like."""
    shape = source.stored(plan.name).shape
    found, start = Sketch(), time.monotonic()
    for region in fields_of(shape):
        if found.values and (found.values >= _SURVEYED or time.monotonic() - start > seconds):
            break
        found += sketch(source.read(plan.name, region, lossy=True))
    return found


def _touched(region: Region, chunks: Sequence[int], shape: Sequence[int]) -> int:
    """Return how many values of the source had to be read for a region: whole chunks."""
    return math.prod(
        max(1, min(-(-part.stop // step) * step, size) - part.start // step * step)
        for part, step, size in zip(region, chunks, shape, strict=True)
    )


def _zarr_bytes(x: Array) -> bytes:
    """Return the bytes of values in a Zarr array with the compressor it has by default."""
    store: dict[str, Any] = {}
    zarr.create_array(store, data=x, chunks=tuple(max(1, size) for size in x.shape))
    return b"".join(value.to_bytes() for key, value in store.items() if not key.endswith("zarr.json"))


def _skeleton_nbytes(source: Source, plans: Sequence[VariablePlan], wishes: Wishes) -> int:
    """Return the bytes of the metadata of a store and of what is written at once, by making them.

    What is achieved is recorded as attributes in the end, twice: of each variable and in the consolidated metadata.
    """
    limited = sum(plan.asked is not None for plan in plans)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.zarr")
        create_store(str(path), source, plans, replace(wishes, zarr_format=3))
        with quiet_zarr():
            zarr.consolidate_metadata(str(path), zarr_format=3)
        return nbytes_on_disk(path) + _ROOT_NBYTES + limited * _ACHIEVED_NBYTES


def _written_at_once(source: Source, plan: VariablePlan, wishes: Wishes) -> VariableEstimate:
    """Return the figures of a variable that is small; its bytes are counted with the metadata."""
    plain = planned(source, plan, wishes)
    return VariableEstimate(plain, 0, 0, 0, None, 0.0, 1.0)
