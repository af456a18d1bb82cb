"""CRA5's checkpoint and files: streams, tensors, fields, and what is said of those that went wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError
from isopress.codec.models.registry import describe
from isopress.codec.vaeformer import cra5
from isopress.codec.vaeformer.checkpoint import from_checkpoint, import_checkpoint
from isopress.codec.vaeformer.config import CRA5_268, spec_of
from isopress.codec.vaeformer.cra5 import Cra5Model, Strings
from isopress.codec.vaeformer.rans import LOW, DerailedError, Rows, decode, encode
from isopress.codec.vaeformer.weights import load_cra5
from tests.cra5_files import CHANNELS, SHAPE, checkpoint, gaussian, save_checkpoint, smooth

ROWS = Rows(tuple(gaussian(s) for s in (0.3, 2.0, 9.0)), (-1, -4, -18))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Cra5Model:
    folder = tmp_path_factory.mktemp("cra5")
    weights, config, statistics = save_checkpoint(folder)
    out = folder / "small.safetensors"
    import_checkpoint(weights, spec_of(str(config)), [statistics], out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOPRESS_MODELS", str(folder))
        return load_cra5(describe(out).sha256)


def test_values_in_and_outside_the_tables_come_back() -> None:
    rng = np.random.default_rng(0)
    indexes = rng.integers(0, 3, 3000).astype(np.int32)
    values = np.rint(rng.standard_normal(3000) * np.array([0.5, 4, 12])[indexes]).astype(np.int32)
    values[:6] = 2**29, -(2**29), 5, -5, 0, 1
    stream = encode(values, indexes, ROWS)
    np.testing.assert_array_equal(decode(stream, indexes, ROWS), values)
    assert encode(values[:0], indexes[:0], ROWS) == LOW.to_bytes(8, "little")


def test_a_wrong_index_is_seen_at_the_end_of_the_stream() -> None:
    indexes = np.ones(500, np.int32)
    stream = encode(np.arange(500, dtype=np.int32) % 5 - 2, indexes, ROWS)
    for place in (0, 100, 490):
        wrong = indexes.copy()
        wrong[place] = 2
        with pytest.raises(DerailedError):
            decode(stream, wrong, ROWS)
    with pytest.raises(DerailedError, match="before its last"):
        decode(stream[:-40], indexes, ROWS)
    with pytest.raises(DerailedError, match="words left"):
        decode(stream + bytes(4), indexes, ROWS)


def test_a_stream_by_hand() -> None:
    # One symbol of a quarter at [0, 1/4): state 2**31 * 4 -> (s // f << 16) + s % f, no word is needed.
    rows = Rows(([0, 2**14, 2**15, 2**16],), (0,))
    state = (LOW // 2**14 << 16) + LOW % 2**14
    assert encode(np.zeros(1, np.int32), np.zeros(1, np.int32), rows) == state.to_bytes(8, "little")


@pytest.mark.parametrize("row", [[0, 5, 5, 2**16], [1, 2, 2**16], [0, 1, 2**15], [0, 2**16]])
def test_tables_that_do_not_rise_are_refused(row: list[int]) -> None:
    with pytest.raises(ValueError, match=r"rise|lengths"):
        Rows.of(np.array([row], np.int32), np.array([len(row)], np.int32), np.zeros(1, np.int32))


def test_a_file_comes_back_with_its_fields(model: Cra5Model) -> None:
    x = smooth()
    data = model.encode(x)
    decoded = model.decode(data)
    assert decoded.arithmetic == "float32"
    assert np.unique(model.indexes(model._hyper(np.zeros((6, 3, 4), np.int32), half=False)[1])).size > 5
    with torch.inference_mode():
        x_hat = model.network.synthesis(torch.from_numpy(decoded.y_hat)[None], shape=SHAPE)[0].numpy()
    fields = np.stack([decoded.channel(i) for i in range(CHANNELS)])
    units = x_hat * model.channels.deviation[:, None, None] + model.channels.mean[:, None, None]
    np.testing.assert_allclose(fields, units, rtol=1e-5)
    assert model.channels.labels == ("t1000", "t500", "t2m")
    np.testing.assert_array_equal(model.channels.mean, np.float32([270, 285, 288]))
    np.testing.assert_array_equal(model.channels.normalised(model.channels.mean[:, None, None] + np.float32(0)), 0)


def test_a_writer_with_attention_in_float16_is_found_out(model: Cra5Model, monkeypatch: pytest.MonkeyPatch) -> None:
    hyper = Cra5Model._hyper

    def differing(self: Cra5Model, z: NDArray[np.int32], *, half: bool) -> tuple[NDArray[np.float32], ...]:
        means, scales = hyper(self, z, half=half)
        return means, scales * np.float32(1 + 0.2 * half)  # so few scales as here hardly ever cross a border

    monkeypatch.setattr(Cra5Model, "_hyper", lambda self, z, *, half: differing(self, z, half=True))
    data = model.encode(smooth())
    monkeypatch.setattr(Cra5Model, "_hyper", differing)
    decoded = model.decode(data)
    assert decoded.arithmetic == "float16 attention"
    with torch.inference_mode():
        plain = model.network.decoder.last_tokens(torch.from_numpy(decoded.y_hat)[None], None, False)
    assert 0 < (plain - decoded.tokens).abs().max() < 0.05 * plain.abs().max()
    monkeypatch.setattr(cra5, "ARITHMETICS", {"float32": False})
    with pytest.raises(CorruptPayloadError, match="derail with float32: the writer's"):
        model.decode(data)


def test_damaged_files_are_errors(model: Cra5Model) -> None:
    data = model.encode(smooth())
    assert Strings.from_bytes(data).to_bytes() == data
    for length in range(len(data)):
        with pytest.raises(PayloadError):
            model.decode(data[:length])
    rng = np.random.default_rng(0)
    for _ in range(40):
        bad = bytearray(data)
        bad[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            model.decode(bytes(bad))
        except PayloadError:
            continue
    with pytest.raises(CorruptPayloadError, match="the model makes"):
        model.decode((1).to_bytes(4, "big") + data[4:])
    with pytest.raises(CorruptPayloadError, match="too many"):
        model.decode(data + b"x")


def test_the_published_geometry_is_that_of_the_published_checkpoint() -> None:
    assert spec_of("cra5-268").config == CRA5_268
    with pytest.raises(ArgumentError, match="neither"):
        spec_of("cra5-269")


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights, config, statistics = save_checkpoint(tmp_path)
    spec, state = spec_of(str(config)), checkpoint()
    for key in ("backbone.g_a.pos_embed", "backbone.h_s.final.weight"):
        with pytest.raises(ArgumentError, match="no tensor"):
            from_checkpoint({k: v for k, v in state.items() if k != key}, spec.config)
    with pytest.raises(ArgumentError, match="has not, such as more"):
        from_checkpoint({**state, "backbone.more": torch.zeros(1)}, spec.config)
    with pytest.raises(ArgumentError, match=r"shape|geometry"):
        from_checkpoint(state, replace(spec.config, latents=5))
    with pytest.raises(ArgumentError, match="no mean"):
        import_checkpoint(weights, spec, [], tmp_path / "out.safetensors")
    torch.save({"a": print}, weights)
    with pytest.raises(ArgumentError, match="tensors alone"):
        import_checkpoint(weights, spec, [statistics], tmp_path / "out.safetensors")
    config.write_text(config.read_text() + "colour = 3\n")
    with pytest.raises(ArgumentError, match="'colour' is unknown"):
        spec_of(str(config))
