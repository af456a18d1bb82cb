"""Chunks that are written in part: what was not written keeps its bits, what was keeps its bound, however often."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import isopress
from isopress.codec.encoded import Method, Section
from isopress.codec.errors import CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.format import IsopressCodec, payload, rewrites
from isopress.format.layers import Layer, write_layers
from isopress.format.payload import parse
from isopress.format.rewrites import MEMORY, Memory, PartialWriteWarning
from isopress.format.zarr.v2_codec import Isopress
from tests.contract import Array, bits
from tests.make_golden import drifting

BOUND = 0.05
SHAPE = (6, 24, 30)
KINDS = ("zarr 3", "shards", "transposed shards", "zarr 2", "zarr 2, big-endian", "zarr 2, Fortran order")

pytestmark = pytest.mark.filterwarnings("ignore::isopress.format.rewrites.PartialWriteWarning")


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    MEMORY.clear()
    yield
    MEMORY.clear()


def create(kind: str, shape: tuple[int, ...] = SHAPE, **settings: Any) -> zarr.Array[Any]:
    """Return an array of one chunk, or one shard of six."""
    settings = settings or {"bound": BOUND}
    options: dict[str, Any] = {"store": zarr.storage.MemoryStore(), "shape": shape, "fill_value": np.nan}
    if kind.startswith("zarr 2"):
        dtype, order = (">f4" if "big" in kind else "<f4"), ("F" if "Fortran" in kind else "C")
        codec = Isopress(**settings)
        return zarr.create_array(
            **options, chunks=shape, dtype=dtype, order=order, zarr_format=2, filters=None, compressors=codec
        )
    if "shards" in kind:
        options["shards"] = shape
        if "transposed" in kind:
            options["filters"] = [zarr.codecs.TransposeCodec(order=tuple(range(len(shape) - 1, -1, -1)))]
    chunks = (1, *shape[1:]) if "shards" in kind else shape
    return zarr.create_array(
        **options, chunks=chunks, dtype="f4", serializer=IsopressCodec(**settings), compressors=None
    )


def truth(steps: int = 6) -> Array:
    return drifting(steps) + 0.03 * np.random.default_rng(0).standard_normal((steps, 24, 30)).astype("f4")


def nbytes(array: zarr.Array[Any]) -> int:
    store: Any = array.store
    return sum(
        len(value) for key, value in store._store_dict.items() if not key.endswith(("json", ".zarray", ".zattrs"))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ten_generations_of_appends_and_regions_keep_the_bound(kind: str) -> None:
    rng, x = np.random.default_rng(1), truth()
    array, wanted = create(kind), np.full(SHAPE, np.nan, "f4")
    regions: list[Any] = [np.s_[:2], *(np.s_[step] for step in range(2, 6))]
    for _ in range(5):
        a, b, c = (sorted(rng.choice(size + 1, 2, replace=False)) for size in SHAPE)
        regions.append(np.s_[a[0] : a[1], b[0] : b[1], c[0] : c[1]])
    for generation, region in enumerate(regions):
        before = np.asarray(array[:])
        array[region] = wanted[region] = x[region] + np.float32(generation)
        after = np.asarray(array[:])
        assert np.array_equal(np.isnan(after), np.isnan(wanted))
        assert np.nanmax(np.abs(after - wanted.astype("f8")), initial=0) <= BOUND, generation
        kept = np.ones(SHAPE, bool)
        kept[region] = False
        assert bits(after[kept]) == bits(before[kept]), generation


def test_a_chunk_that_grows_step_by_step_is_larger_and_written_again_as_small_as_ever() -> None:
    x = truth(8)
    at_once, by_step = create("zarr 3", x.shape), create("zarr 3", x.shape)
    at_once[:] = x
    for step in range(8):
        by_step[step] = x[step]
    assert nbytes(at_once) < nbytes(by_step) <= 3 * nbytes(at_once)  # tiny fields, of 80 bytes at least
    by_step[:] = x
    assert nbytes(by_step) == nbytes(at_once)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "range", "bound": 1e-3},
        {"mode": "pointwise", "bound": 1e-3},
        {"mode": "pointwise", "bound": 1e-3, "floor": 1e-2},
        {"bound": 0.05, "exact": (-999.0,)},
        {"bound": [0.05] * 6},
        {"mode": "latent", "rmse": 0.2},
    ],
    ids=str,
)
def test_every_mode_keeps_what_was_not_written(settings: dict[str, Any]) -> None:
    array, x = create("zarr 3", **settings), truth()
    array[:] = x
    before = np.asarray(array[:])
    x[2:4, 3:9] = 285 + x[2:4, 3:9] / 10
    x[2, 4, 5] = -999
    array[2:4, 3:9] = x[2:4, 3:9]
    after = np.asarray(array[:])
    kept = np.ones(SHAPE, bool)
    kept[2:4, 3:9] = False
    assert bits(after[kept]) == bits(before[kept])
    wrong = np.abs(after - x.astype("f8"))[~kept]
    if settings.get("mode") == "latent":
        assert np.sqrt(np.mean(wrong**2)) <= 1.03 * 0.2
    else:
        largest = {"range": 1e-3 * np.ptp(x), "pointwise": 1.0}.get(settings.get("mode", "abs"), 0.05)
        assert wrong.max() <= largest


def test_scattered_values_leave_all_between_them_as_they_were() -> None:
    array, x = create("zarr 3"), truth()
    array[:] = x
    before = np.asarray(array[:])
    written = np.random.default_rng(2).random(SHAPE) < 0.01
    written[:, 0] = written[:, :, 0] = False
    array.set_mask_selection(written, x[written] + 3)
    after = np.asarray(array[:])
    assert bits(after[~written]) == bits(before[~written])
    assert np.abs(after[written] - (x[written] + 3.0)).max() <= BOUND


def test_more_layers_than_there_may_be_become_one_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrites, "MAX_LAYERS", 3)
    array, x = create("zarr 3"), truth()
    array[:] = x
    for step in range(5):
        array[step, 3:9] = x[step, 3:9]
        assert np.abs(np.asarray(array[:]) - x).max() <= BOUND
    before = np.asarray(array[:])
    array[5, 3:9] = x[5, 3:9]
    assert bits(np.asarray(array[:5])) == bits(before[:5])


def test_a_copy_with_the_same_settings_is_exact_and_one_with_others_is_coded_anew() -> None:
    codec, x = Isopress(bound=BOUND), truth()
    first = codec.encode(x)
    assert codec.encode(codec.decode(first)) == first
    other = replace(codec, bound=2 * BOUND)
    assert len(other.encode(codec.decode(first))) < len(first)


def test_new_values_are_coded_as_if_nothing_had_been_read() -> None:
    codec, x = Isopress(bound=BOUND), truth()
    x[:, :12] = 0  # rows that many chunks have in common
    alone = codec.encode(x + 1)
    codec.decode(codec.encode(x))
    codec.decode(codec.encode(x + 2))
    assert codec.encode(x + 1) == alone
    with rewrites.whole_chunks():
        y = codec.decode(alone)
    y[0, 0, 0] += 1
    assert isopress.inspect(codec.encode(y)).method != Method.LAYERS


def test_it_is_said_once_that_chunks_grow_and_what_helps() -> None:
    array = create("zarr 3")
    array[:] = truth()
    with pytest.warns(PartialWriteWarning, match=r"isopress append") as said:
        array[0, 3] = 290
    assert len(said) == 1


def test_memory_is_bounded_but_for_the_latest() -> None:
    memory, codec = Memory(limit=20_000), Isopress(bound=BOUND)
    for seed in range(20):
        x = drifting(2) + np.float32(seed)
        data = codec.encode(x)
        memory.add(payload.parse(data), codec.decode(data), codec, to_write=True)
        assert len(memory)
        assert memory.nbytes <= 20_000
    assert memory.recall(isopress.decompress(data), codec) == data
    small = Memory(limit=0)
    small.add(payload.parse(data), x, codec, to_write=True)
    assert len(small) == 1


def test_single_fields_of_a_chunk_of_layers_are_those_of_the_whole() -> None:
    array, x = create("zarr 3"), truth()
    array[:4] = x[:4]
    array[4] = x[4]
    array[1:3, 5:9, 3:8] = 290
    whole = np.asarray(array[:])
    isopress.format.set_cache_size(0)
    try:
        for index in (0, 1, 4, np.s_[::2], np.s_[2, 6], np.s_[1:5, 7, 4]):
            assert bits(np.asarray(array[index])) == bits(whole[index])
    finally:
        isopress.format.set_cache_size(256)


def test_ten_generations_of_xarray_appends_and_regions_keep_the_bound(tmp_path: Path) -> None:
    path, x = tmp_path / "a.zarr", truth(12)

    def hours(start: int, stop: int) -> xr.Dataset:
        times = ("time", np.arange(start, stop), {"units": "hours since 2020-01-01"})
        return xr.Dataset({"t": (("time", "lat", "lon"), x[start:stop])}, {"time": times})

    def stored() -> Array:
        with xr.open_zarr(path, consolidated=False) as back:
            return np.asarray(back["t"])

    encoding: Any = {"t": {"serializer": IsopressCodec(bound=BOUND), "compressors": (), "chunks": (4, 24, 30)}}
    options: Any = {"consolidated": False, "zarr_format": 3}
    hours(0, 2).to_zarr(path, encoding=encoding, **options)
    for step in range(2, 12):
        before = stored()
        hours(step, step + 1).to_zarr(path, append_dim="time", **options)
        x[step - 1 : step + 1] += 1
        hours(step - 1, step + 1).to_zarr(path, region={"time": slice(step - 1, step + 1)}, **options)
        after = stored()
        assert np.abs(after - x[: step + 1].astype("f8")).max() <= BOUND, step
        assert bits(after[: step - 1]) == bits(before[: step - 1]), step


# --- damaged and hostile payloads -------------------------------------------------------------------------------------


def layered(*layers: Layer, dtype: str = "<f4") -> bytes:
    info = payload.PayloadInfo(np.dtype(dtype), SHAPE, "C", "abs", int(Method.LAYERS), bound=BOUND)
    return payload.pack(info, ((int(Section.LAYERS), write_layers(layers)),))


def test_layers_that_no_writer_makes_are_refused() -> None:
    whole = isopress.compress(truth(), bound=BOUND)
    field = isopress.compress(truth()[:1], bound=BOUND)
    start, corner = (0, 0, 0), (5, 0, 0)
    base = Layer(whole, start)
    assert isopress.decompress(layered(base, Layer(field, corner))).shape == SHAPE
    other = isopress.compress(truth().astype("f8"), bound=BOUND)
    empty = isopress.compress(np.zeros((1, 0, 30), "f4"), bound=BOUND)
    flat = isopress.compress(truth()[0], bound=BOUND)
    for layers in (
        (),
        (Layer(field, start),),
        (Layer(whole, start, bytes(4)),),
        (base, Layer(field, (6, 0, 0))),
        (base, Layer(other, start)),
        (base, Layer(empty, start)),
        (base, Layer(flat, start)),
        (base, Layer(layered(base), start)),
        (Layer(layered(base), start),),
    ):
        with pytest.raises(CorruptPayloadError):
            isopress.decompress(layered(*layers))
    with pytest.raises(CorruptPayloadError):
        isopress.decompress(layered(base, dtype="<i4"))


def test_layers_together_are_paid_for() -> None:
    huge = payload.PayloadInfo(np.dtype("f4"), (1, 8192, 8192), "C", "abs", int(Method.CONSTANT), bound=1.0)
    one = payload.pack(huge, ((int(Section.PARAMETERS), struct.pack("<f", 1)),))
    info = replace(huge, method=int(Method.LAYERS))
    data = payload.pack(info, ((int(Section.LAYERS), write_layers([Layer(one, (0, 0, 0))] * 3)),))
    with pytest.raises(CorruptPayloadError, match="claim more values"):
        isopress.decompress(data)


def test_a_section_of_layers_cut_or_changed_anywhere_is_an_error_or_other_values() -> None:
    whole = layered(
        Layer(isopress.compress(truth(), bound=1), (0, 0, 0)), Layer(isopress.compress(truth()[:1], bound=1), (5, 0, 0))
    )
    section = dict(parse(whole).sections())[Section.LAYERS]
    info = parse(whole).info
    rng = np.random.default_rng(0)
    for length in (0, 1, 3, 5, 20, len(section) // 2, len(section) - 1):
        with pytest.raises((TruncatedPayloadError, CorruptPayloadError)):
            isopress.decompress(payload.pack(info, ((int(Section.LAYERS), section[:length]),)))
    for _ in range(200):
        damaged = bytearray(section)
        damaged[rng.integers(0, 12) if rng.random() < 0.5 else rng.integers(len(section))] ^= 1 << rng.integers(8)
        try:
            isopress.decompress(payload.pack(info, ((int(Section.LAYERS), bytes(damaged)),)))
        except PayloadError:
            continue


def test_of_many_chunks_that_are_known_the_one_with_most_in_common_is_found() -> None:
    memory = rewrites.Memory()
    codec = isopress.IsopressCodec(mode="abs", bound=0.01)
    fields = np.random.default_rng(5).normal(0, 1, (6, 12, 16)).astype("f4")
    payloads = [isopress.compress(field, bound=0.01) for field in fields]
    decoded = list(map(isopress.decompress, payloads))
    for data, values in zip(payloads, decoded, strict=True):
        memory.add(payload.parse(data), values, codec, to_write=False)
    changed = decoded[3].copy()
    changed[:5] = 7
    changed[11] = decoded[4][11]
    assert memory.recall(changed, codec) == payloads[3]
    assert memory.recall(fields[0] + 50, codec) is None
    assert memory.recall(changed, isopress.IsopressCodec(mode="abs", bound=0.02)) is None
    assert memory.recall(changed[:, :8], codec) is None
