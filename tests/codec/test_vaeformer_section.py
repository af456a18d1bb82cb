"""The payload method of a VAEformer: integers that are the same everywhere, fields on demand, targets and bounds."""

import hashlib
import os
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

import isopress
from isopress import ModelNotFoundError
from isopress.codec.encoded import Method
from isopress.codec.entropy.coder import SymbolWriter
from isopress.codec.entropy.distributions import OFFSET_MAX, offset_model
from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError
from isopress.codec.models.registry import VARIABLE
from isopress.codec.vaeformer.integer_scales import IntegerScales, integer_network, scale_indexes, step_of
from isopress.codec.vaeformer.model import PatchVAEformer
from isopress.codec.vaeformer.section import FieldDecoder, decode_section, encode_fields
from isopress.codec.vaeformer.weights import VaeformerModel, load_vaeformer
from isopress.format.api import decode
from isopress.format.decode_cache import CACHE
from isopress.format.payload import parse
from tests.fields import BLOCKY_DEVIATION, BLOCKY_MEAN, blocky, spectral_field
from tests.make_golden import ALONE, SMALL
from tests.spec import vaeformer as second
from tests.spec.test_spec import weights
from tests.vaeformer_models import CONFIG, TINY, save_small


@pytest.fixture(scope="module")
def model() -> VaeformerModel:
    return load_vaeformer(SMALL)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("step", [-250, -33, 0, 7, 320])
def test_the_integer_network_is_the_one_that_is_trained(step: int, periodic: bool) -> None:
    torch.manual_seed(step)
    scales = IntegerScales(TINY)
    torch.nn.init.normal_(scales.last.weight, std=1.5)
    torch.nn.init.normal_(scales.first.weight, std=0.3)
    network = integer_network(scales.integers())
    z = torch.randint(-127, 128, (2, TINY.hyper_latents, 5, 6)).float()
    trained = scales(z, torch.full((2,), step_of(step)), (9, 11), periodic)
    for one, expected in zip(z, trained, strict=True):
        found = scale_indexes(network, one.numpy().astype(np.int32), step, TINY.hyper_patch, (9, 11), periodic)
        np.testing.assert_array_equal(found, expected.detach().numpy())
    assert trained.unique().numel() > 50
    trained.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in scales.parameters())


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1)])
def test_channels_of_another_order_are_the_same_fields_and_one_at_a_time(
    model: VaeformerModel, order: tuple[int, ...]
) -> None:
    x = blocky(2).astype(np.float64)
    usual, plain = encode_fields(x, 10, model, periodic=False)
    section, written = encode_fields(x[:, list(order)], 10, model, periodic=False, order=order)
    assert len(section) == len(usual) + 2 * len(order)
    read = decode_section(section, written.shape, model)
    for t, c in np.ndindex(2, 3):
        np.testing.assert_array_equal(read.field(t, c), plain.field(t, order[c]))
    for wrong in ((0, 1, 2), (0, 0, 1), (0, 1, 3)):
        damaged = section[:3] + struct.pack("<3H", *wrong) + section[9:]
        with pytest.raises(CorruptPayloadError, match="order"):
            decode_section(damaged, written.shape, model)


def test_channels_are_refused_where_there_are_none_of_these_names() -> None:
    x = blocky()
    with pytest.raises(ArgumentError, match="t850, t500, u10, not t850, t500, v10"):
        isopress.compress(x, mode="latent", rmse=0.4, model=SMALL, channels=["t850", "t500", "v10"])
    with pytest.raises(ArgumentError, match="name its weights as model"):
        isopress.compress(x, bound=0.4, channels=["t850", "t500", "u10"])
    with pytest.raises(ArgumentError, match="are no VAEformer's"):
        isopress.compress(x, bound=0.4, model="field-0.9", channels=["t850", "t500", "u10"])
    for wrong in ("t850", 3, None, [850, 500]):
        with pytest.raises(ArgumentError, match="sequence of names"):
            isopress.compress(x, bound=0.4, model=SMALL, channels=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [SMALL, ALONE])
@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (26, 39), (17, 16)])
@pytest.mark.parametrize("periodic", [False, True])
def test_both_readers_find_the_symbols_and_values_of_the_writer(
    name: str, shape: tuple[int, int], periodic: bool
) -> None:
    model = load_vaeformer(name)
    x = blocky(2, shape=shape).astype(np.float64)[:, : model.network.config.channels]
    for index in (-90, 0, 64) if shape == (17, 16) else (0,):
        section, written = encode_fields(x, index, model, periodic=periodic)
        read = decode_section(section, written.shape, model)
        others = second.symbols(section, x.shape, *weights(model.sha256[:16]))
        for a, b, (z, y) in zip(written.hours, read.hours, others, strict=True):
            for found in (b.hyper, z):
                np.testing.assert_array_equal(found, a.hyper)
            for found in (b.symbols, y):
                np.testing.assert_array_equal(found, a.symbols)
        np.testing.assert_array_equal(read.values(), written.values())
        values = second.fields(section, x.shape, *weights(model.sha256[:16]))
        np.testing.assert_allclose(read.values(), values, rtol=1e-5, atol=1e-4 * (x.std() + 1))


def test_both_readers_know_wavelets_of_several_channels_and_matrices_of_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = tmp_path / "several.safetensors", replace(CONFIG, linear="wavelet", latents=48)
    save_small(path, config, largest=20)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    model, x = load_vaeformer("several"), blocky(2).astype(np.float64)
    section, written = encode_fields(x, -40, model, periodic=True)
    read = decode_section(section, written.shape, model)
    np.testing.assert_array_equal(read.values(), written.values())
    values = second.fields(section, x.shape, asdict(config), load(path.read_bytes()))
    np.testing.assert_allclose(read.values(), values, rtol=1e-5, atol=1e-3)


def test_the_shipped_weights_code_a_field_of_any_unit_and_the_second_decoder_reads_it() -> None:
    model, x = load_vaeformer("small"), 1e5 + 800 * spectral_field(64, 96)[None, None]
    section, written = encode_fields(x, -40, model, periodic=True)
    assert float((written.values() - x).std()) < 0.1 * x.std()
    assert len(section) < x.size // 2
    values = second.fields(section, x.shape, *weights(model.sha256[:16]))
    np.testing.assert_allclose(decode_section(section, written.shape, model).values(), values, rtol=1e-5)


@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (3e4, 1e5), (1e-9, 0), (2.5e-4, 1), (1e30, 0)])
def test_fields_of_any_unit_cost_the_same(factor: float, offset: float) -> None:
    model, x = load_vaeformer(ALONE), blocky(2)[:, :1].astype(np.float64)
    expected, alike = encode_fields(x, -40, model, periodic=False)
    section, decoder = encode_fields(factor * x + offset, -40, model, periodic=False)
    assert len(section) == pytest.approx(len(expected), rel=0.02)
    np.testing.assert_allclose((decoder.values() - offset) / factor, alike.values(), rtol=0, atol=2)
    read = decode_section(section, decoder.shape, model)
    np.testing.assert_array_equal(read.values(), decoder.values())


def test_fields_beyond_what_their_normalisation_holds_are_coded_otherwise() -> None:
    x = blocky(2)[:, 0].astype(np.float64)
    for scale in (1e300, 1e-300, 0.0):
        extreme = scale * x
        extreme[0, 3:9, 5:10] = np.nan
        payload = isopress.compress(extreme, mode="latent", rmse=2 * (scale or 1), model=ALONE)
        off = (isopress.decompress(payload) - extreme) / (scale or 1)
        np.testing.assert_array_equal(np.isnan(off), np.isnan(extreme))
        assert np.sqrt(np.nanmean(off**2)) <= 1.03 * 2


def test_means_and_deviations_that_cannot_be_are_corrupt() -> None:
    model = load_vaeformer(ALONE)
    section, decoder = encode_fields(blocky(2)[:, :1].astype(np.float64), 0, model, periodic=False)
    for at, number in ((3, 0.0), (3, -1.0), (3, np.inf), (7, np.nan), (11, -np.inf)):
        damaged = section[:at] + struct.pack("<f", number) + section[at + 4 :]
        with pytest.raises(CorruptPayloadError, match="finite"):
            decode_section(damaged, decoder.shape, model)
    with pytest.raises(PayloadError):
        decode_section(section[:16], decoder.shape, model)


def test_finer_steps_are_nearer_and_longer(model: VaeformerModel) -> None:
    x = blocky().astype(np.float64)[None]
    found = [encode_fields(x, index, model, periodic=False) for index in (-160, -96, -32, 32)]
    sizes = [len(section) for section, _ in found]
    errors = [float(((d.values() - x) / BLOCKY_DEVIATION[:, None, None]).std()) for _, d in found]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_hours_do_not_know_how_many_they_are(model: VaeformerModel) -> None:
    x = blocky(8).astype(np.float64)
    _, together = encode_fields(x, -20, model, periodic=False)
    for t in range(8):
        _, alone = encode_fields(x[t : t + 1], -20, model, periodic=False)
        np.testing.assert_array_equal(alone.hours[0].symbols, together.hours[t].symbols)
        np.testing.assert_array_equal(alone.values()[0], together.values()[t])


def test_what_an_analysis_in_bfloat16_wrote_is_read_in_float32(
    model: VaeformerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, original = blocky(2).astype(np.float64), PatchVAEformer.analysis
    _, exact = encode_fields(x, -40, model, periodic=True)

    def coarse(self: PatchVAEformer, *arguments: Any, **keywords: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_variance = original(self, *arguments, **keywords)
        return mean.float(), log_variance.float()

    monkeypatch.setattr(PatchVAEformer, "analysis", coarse)
    section, written = encode_fields(x, -40, model, periodic=True)
    read = decode_section(section, written.shape, model)
    assert any((a.symbols != b.symbols).any() for a, b in zip(written.hours, exact.hours, strict=True))
    for a, b in zip(written.hours, read.hours, strict=True):
        np.testing.assert_array_equal(a.hyper, b.hyper)
        np.testing.assert_array_equal(a.symbols, b.symbols)
    missed, least = (((d.values() - x) / BLOCKY_DEVIATION[:, None, None]).std() for d in (read, exact))
    assert missed < 1.2 * least


_READ = """
import hashlib, sys
import torch
torch.set_num_threads(int(sys.argv[2]))
from isopress.codec.vaeformer.section import decode_section
from isopress.codec.vaeformer.weights import load_vaeformer
hours = decode_section(open(sys.argv[1], "rb").read(), (2, 3, 26, 39), load_vaeformer(sys.argv[3])).hours
print(hashlib.sha256(b"".join(h.hyper.tobytes() + h.symbols.tobytes() for h in hours)).hexdigest())
"""


def test_threads_and_kernels_of_other_processors_find_the_same_symbols(model: VaeformerModel, tmp_path: Path) -> None:
    section, written = encode_fields(blocky(2).astype(np.float64), -40, model, periodic=True)
    path = tmp_path / "section"
    path.write_bytes(section)
    expected = hashlib.sha256(b"".join(h.hyper.tobytes() + h.symbols.tobytes() for h in written.hours)).hexdigest()
    otherwise = {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Prescott", "MKL_CBWR": "COMPATIBLE"}
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", **otherwise}
    command = [sys.executable, "-c", _READ, str(path), "2", SMALL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_one_channel_is_made_without_the_others_and_hours_are_synthesised_once(model: VaeformerModel) -> None:
    x = blocky(2).astype(np.float64)
    section, written = encode_fields(x, -40, model, periodic=False)
    whole = written.values()
    decoder = decode_section(section, written.shape, model)
    for t, c in [(1, 2), (1, 0), (0, 1), (1, 1), (0, 0), (0, 2), (1, 2)]:
        np.testing.assert_array_equal(decoder.field(t, c), whole[t, c])
    assert decoder.synthesised == 2


def test_bounded_channels_are_made_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blocky(2)
    x[0, 1, 5:7] = np.nan
    parsed = parse(isopress.compress(x, bound=0.5, model=SMALL))
    assert parsed.info.method == Method.ON_VAEFORMER
    whole, made = isopress.decompress(parsed.data), list[tuple[int, int]]()
    original = FieldDecoder.field

    def counted(self: FieldDecoder, t: int, channel: int) -> np.ndarray:
        made.append((t, channel))
        return original(self, t, channel)

    monkeypatch.setattr(FieldDecoder, "field", counted)
    CACHE.clear()
    for place in ((1, 2), (0, 1), (1, 0)):
        np.testing.assert_array_equal(decode(parsed, place), whole[place])
    assert made == [(1, 2), (0, 1), (1, 0)]


def test_the_decode_cache_serves_every_channel_of_an_hour_with_one_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    made = list[FieldDecoder]()
    x = blocky(shape=(24, 36))
    array = zarr.create_array(
        {}, shape=x.shape, chunks=x.shape, dtype="f4", compressors=(), serializer=_codec(mode="latent", rmse=0.3)
    )
    array[:] = x
    CACHE.clear()
    original = FieldDecoder._tokens

    def counted(self: FieldDecoder, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(self)
        return original(self, t)

    monkeypatch.setattr(FieldDecoder, "_tokens", counted)
    for channel in range(3):
        field = np.asarray(array[channel])
        assert np.sqrt(np.mean((field - x[channel]) ** 2)) < 1
    assert len(made) == 3
    assert len({id(decoder) for decoder in made}) == 1
    assert made[0].synthesised == 1


def _codec(**settings: object) -> object:
    from isopress.format.zarr.v3_codec import IsopressCodec

    return IsopressCodec.from_dict({"name": "isopress", "configuration": {**settings, "model": SMALL}})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_targets_are_met_and_special_values_kept(dtype: str) -> None:
    x = blocky(2).astype(dtype)
    x[0, 1, 3:9, 4:20] = np.nan
    x[1, 2, 0, :2] = np.inf, -0.0
    payload = isopress.compress(x, mode="latent", rmse=0.4, model=SMALL)
    info, y = isopress.inspect(payload), isopress.decompress(payload)
    assert info.method == Method.VAEFORMER
    finite = np.isfinite(x) & (x != 0)
    assert x[~finite].tobytes() == y[~finite].tobytes()
    assert np.sqrt(np.mean((x[finite] - y[finite]) ** 2)) == pytest.approx(info.rmse, rel=1e-4)
    assert 0.9 * 0.4 < info.rmse <= 1.03 * 0.4
    small = isopress.compress(blocky(2), mode="latent", ratio=12, model=SMALL)
    assert blocky(2).nbytes / len(small) == pytest.approx(12, rel=0.05)


@pytest.mark.parametrize("settings", [{"bound": 0.5}, {"bound": 0.02}, {"mode": "range", "bound": 0.01}])
def test_bounds_hold_on_top_of_the_model(settings: dict[str, object]) -> None:
    x = blocky(2)
    x[0, :, 5:7] = np.nan
    payload = isopress.compress(x, model=SMALL, **settings)  # type: ignore[arg-type]
    y, info = isopress.decompress(payload), isopress.inspect(payload)
    finite = np.isfinite(x)
    assert (abs(x[finite].astype("f8") - y[finite].astype("f8")) <= info.resolved_bound).all()
    assert np.isnan(y[~finite]).all()
    plain = isopress.compress(x, **settings)  # type: ignore[arg-type]
    assert len(payload) <= len(plain)
    coarse = isopress.inspect(isopress.compress(x, bound=0.5, model=SMALL))
    assert coarse.method == Method.ON_VAEFORMER


def test_a_model_that_knows_nothing_of_the_data_breaks_no_bound() -> None:
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=(3, 20, 20)) * 1e8, 1e-9 * blocky(), BLOCKY_MEAN[:, None, None] + np.zeros((3, 9, 9))):
        y = isopress.decompress(isopress.compress(x, mode="range", bound=0.01, model=SMALL))
        assert abs(x - y).max() <= 0.01 * np.ptp(x)
        target = isopress.decompress(isopress.compress(x, mode="latent", rmse=0.05 * x.std() + 1e-12, model=SMALL))
        assert np.sqrt(np.mean((x - target) ** 2)) <= 1.03 * (0.05 * x.std() + 1e-12)


@pytest.mark.parametrize("shape", [(26, 39), (2, 26, 39), (3, 2, 26, 39), (5,)])
@pytest.mark.parametrize("settings", [{"bound": 0.1}, {"mode": "latent", "rmse": 0.1}])
def test_chunks_without_its_channels_are_refused(shape: tuple[int, ...], settings: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=r"3 channels \(t850, t500, u10\) in this order"):
        isopress.compress(np.arange(np.prod(shape), dtype="f4").reshape(shape), model=SMALL, **settings)  # type: ignore[arg-type]


def test_unknown_weights_are_an_error() -> None:
    with pytest.raises(ModelNotFoundError):
        isopress.compress(blocky(), bound=0.1, model="vaeformer-none")


def test_a_few_bytes_that_claim_much_cost_little(model: VaeformerModel) -> None:
    section, _ = encode_fields(blocky()[None].astype(np.float64), 0, model, periodic=False)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode_section(section, (4000, 3, 800, 800), model)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_damaged_sections_are_errors(model: VaeformerModel) -> None:
    section, written = encode_fields(blocky()[None].astype(np.float64), 0, model, periodic=False)
    for bad in (section[:3], b"\4" + section[1:], section[:1] + b"\xff\x7f" + section[3:], section[:-1] + b"\0"):
        with pytest.raises(PayloadError):
            decode_section(bad, written.shape, model)
    beyond = SymbolWriter(peaked=True)
    for c, z in enumerate(written.hours[0].hyper):
        beyond.symbol(OFFSET_MAX, offset_model(True))
        beyond.phase(np.full(z.size, 999, np.int32), *model.hyper_tables(c, z.size))
    with pytest.raises(CorruptPayloadError, match="hyper-latent of 999"):
        decode_section(section[:3] + beyond.finish() + bytes(400), written.shape, replace(model))
