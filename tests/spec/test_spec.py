"""The SPEC is the truth: a reader written from it alone reads what isopress writes, and its examples hold."""

import json
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

import isopress
from isopress.codec.encoded import Method, Section
from isopress.format import IsopressCodec, payload
from isopress.format.payload import PayloadInfo
from isopress.format.zarr.v2_codec import Isopress
from tests.contract import ARRAYS, MODES, OTHERS, PAIRS, bits
from tests.format.test_payload import repaired
from tests.golden_payloads import GOLDEN, Golden, all_golden
from tests.spec import reader, values
from tests.spec import reader as spec_reader
from tests.spec import values as spec_values
from tests.spec.entropy import Tensors

SPEC = (Path(__file__).parents[2] / "format" / "SPEC.md").read_text()
FLOATING = (5, 6, 8, 9)  # methods that are not the same to the last bit on every machine
EXAMPLE = np.full((721, 1440), 273.15, "<f4"), MODES["abs"] | {"bound": 0.1}
ERRORS = {
    "foreign": isopress.codec.errors.ForeignPayloadError,
    "truncated": isopress.codec.errors.TruncatedPayloadError,
    "unsupported": isopress.codec.errors.UnsupportedVersionError,
    "corrupt": isopress.codec.errors.CorruptPayloadError,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SPEC, re.DOTALL)


def hex_bytes(block: str) -> bytes:
    """Return the bytes of a worked example: on each line, what stands before two spaces."""
    return bytes.fromhex("".join(line.split("  ")[0] for line in block.splitlines()))


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table whose header starts with `heading`."""
    start = SPEC.index(f"| {heading} |")
    lines = SPEC[start:].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_worked_example_is_what_isopress_writes_and_both_readers_read() -> None:
    x, settings = EXAMPLE
    (block,) = blocks("hex")
    example = hex_bytes(block)
    assert isopress.compress(x, **settings) == example
    for y in (isopress.decompress(example), spec_values.decode(spec_reader.parse(example), weights)):
        assert (y.dtype, y.shape, bits(y)) == (x.dtype, x.shape, bits(x))
    assert f"{len(example)} bytes" in SPEC


def paragraph(start: str) -> str:
    """Return the paragraph that starts so."""
    return SPEC[SPEC.index(start) :].split("\n\n")[0]


def numbers(cell: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", cell)]


@pytest.mark.parametrize(("case", "mode"), PAIRS)
def test_the_second_reader_agrees_on_header_sections_and_values(case: str, mode: str) -> None:
    data = isopress.compress(ARRAYS[case]().astype(">f4"), **MODES[mode])
    parsed, info = spec_reader.parse(data), isopress.inspect(data)
    assert (parsed.dtype, parsed.big_endian) == (info.dtype.name, True)
    assert (parsed.version, parsed.fortran, tuple(parsed.shape)) == (info.version, False, info.shape)
    assert (parsed.mode, parsed.method) == (info.mode, info.method)
    assert tuple(model.hex() for model in parsed.models) == info.models
    assert tuple(parsed.sections.items()) == payload.parse(data).sections()
    numbers = parsed.numbers
    assert (numbers.get("bound"), numbers.get("floor")) == (info.bound, info.floor)
    assert numbers.get("resolved bound", numbers.get("bound", 0)) == info.resolved_bound
    assert (numbers.get("max error", 0), numbers.get("rmse", 0)) == (info.max_error, info.rmse)
    y, expected = spec_values.decode(parsed, weights), isopress.decompress(data)
    if parsed.method in FLOATING:
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)
    else:
        assert (y.dtype, y.shape, bits(y)) == (expected.dtype, expected.shape, bits(expected))


@pytest.mark.parametrize("target", [{"ratio": 300.0}, {"target_rmse": 0.5}])
def test_the_second_reader_agrees_on_targets(target: dict[str, float]) -> None:
    header = PayloadInfo(np.dtype("f4"), (3, 4), "C", "latent", 1, max_error=2.0, rmse=0.25, **target)  # type: ignore[arg-type]
    data = payload.pack(header, ((6, bytes(49)),))
    parsed, info = spec_reader.parse(data), isopress.inspect(data)
    assert parsed.mode == info.mode == "latent"
    assert parsed.numbers == {"max error": 2, "rmse": 0.25, **{name.replace("_", " "): n for name, n in target.items()}}
    assert {"ratio": info.ratio, "target_rmse": info.target_rmse} == {"ratio": None, "target_rmse": None} | target
    assert np.array_equal(spec_values.decode(parsed, weights), isopress.decompress(data))


@pytest.mark.parametrize("dtype", OTHERS)
@pytest.mark.parametrize("order", "CF")
def test_the_second_reader_decodes_stored_values_of_every_dtype(dtype: str, order: str) -> None:
    rng = np.random.default_rng(0)
    x = np.frombuffer(rng.bytes(6 * np.dtype(dtype).itemsize), dtype).reshape(2, 3)
    x = np.asarray(x.view("u1") & 1 if dtype == "?" else x, dtype, order=order)  # type: ignore[call-overload]
    parsed = spec_reader.parse(isopress.compress(x, mode="lossless"))
    assert parsed.sections[6][0] == 0
    y = spec_values.decode(parsed, weights)
    assert (y.dtype.name, y.flags.f_contiguous, bits(y)) == (x.dtype.name, order == "F", bits(x))


def test_both_readers_name_the_same_error() -> None:
    example = hex_bytes(blocks("hex")[0])
    damaged = [example[:length] for length in range(len(example))]
    for bit in range(8 * len(example)):
        data = bytearray(example)
        data[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(data))
    for offset, value in ((16, 0x84), (17, 1), (17, 2), (18, 12), (19, 5), (19, len(payload.MODES)), (5, 7)):
        data = bytearray(example)
        data[offset] = value
        damaged.append(repaired(data))
    for data in (*damaged, example + b"\0"):
        try:
            spec_reader.parse(bytes(data))
        except spec_reader.SpecError as error:
            with pytest.raises(ERRORS[str(error)]):
                payload.parse(data).sections()
        else:
            pytest.fail("a damaged payload was read")


def test_the_json_examples_are_metadata_of_both_zarr_formats() -> None:
    (block,) = blocks("json")
    v2, v3 = map(json.loads, block.splitlines())
    assert numcodecs.get_codec(v2["compressor"]) == Isopress(mode="abs", bound=0.1)
    assert Isopress(mode="abs", bound=0.1).get_config() == v2["compressor"]
    codec = IsopressCodec(mode="range", bound=1e-3)
    assert IsopressCodec.from_dict(v3["codecs"][0]) == codec
    assert codec.to_dict() == v3["codecs"][0]


def test_the_text_names_every_method_section_mode_and_dtype_of_the_code() -> None:
    methods = table("method | name")
    assert {row[1]: int(row[0]) for row in methods} == {m.name.lower(): m.value for m in Method}
    assert {int(row[0]): tuple(set(numbers(cell)) for cell in row[2:4]) for row in methods} == spec_values.SECTIONS
    listed = dict(re.findall(r"(\d+) (\w+)", re.sub(r"\(.*?\)", "", re.split(r"\.\sThey", paragraph("Sections: "))[0])))
    assert {name: int(number) for number, name in listed.items()} == {s.name.lower(): s.value for s in Section}
    assert [row[1] for row in table("code | mode")] == list(payload.MODES)
    dtypes = re.search(r"Dtypes, from 0: (.*?) \(", paragraph("Flags: "), re.DOTALL)
    assert dtypes is not None
    assert re.split(r",\s+", dtypes[1]) == [str(dtype) for dtype in payload.DTYPES]
    assert [row[0] for row in table("version")] == ["{}.{}".format(*payload.VERSION)]
    assert "| major, minor version | {}, {}; unsupported |".format(*payload.VERSION) in SPEC


def test_the_limits_in_the_text_are_those_of_the_code() -> None:
    assert payload.MAX_DECODED_BYTES == 2**32
    assert "MUST NOT be above 2^32" in SPEC
    assert payload.MAX_NDIM == 32
    assert "| number of axes | 0 to 32 |" in SPEC


def test_the_text_is_short_and_its_lines_fit() -> None:
    assert len(SPEC.encode()) <= 46_000  # the text of 0.7 by half, layers, VAEformers, quiet points, whole numbers
    assert max(map(len, SPEC.splitlines())) <= 120


def test_the_configuration_keys_are_those_of_the_codec() -> None:
    keys = {key for row in table("key") for key in re.findall(r"`(\w+)`", row[0])}
    assert keys == set(Isopress(mode="pointwise", bound=0.1, floor=0.1).__dict__)


FOLDERS_OF_MODELS = (Path(str(files("isopress.codec.models"))), GOLDEN / "models")


@cache
def weights(model: bytes) -> tuple[dict[str, Any], Tensors]:
    """Return the configuration of networks and the tensors of the weights with this model id (SPEC chapter 9)."""
    paths = (path for folder in FOLDERS_OF_MODELS for path in folder.glob("*.safetensors"))
    path = next(path for path in paths if sha256(path.read_bytes()).digest().startswith(model))
    with safe_open(path, "np") as file:  # type: ignore[no-untyped-call]
        metadata = file.metadata() or {}
    return json.loads(metadata.get("config") or metadata.get("synthesis", "{}")), load(path.read_bytes())


@cache
def tensors_of(name: str) -> Tensors:
    return load((FOLDERS_OF_MODELS[0] / f"{name}.safetensors").read_bytes())


@pytest.mark.parametrize("one", all_golden(), ids=str)
def test_a_golden_payload_decodes_by_the_spec_alone(one: Golden) -> None:
    parsed = reader.parse(one.payload)
    y = values.decode(parsed, weights)
    assert (y.dtype.str, list(y.shape)) == (one.decoded["dtype"], one.decoded["shape"])
    assert y.flags.f_contiguous if one.decoded["order"] == "F" else y.flags.c_contiguous
    if one.values is not None:  # not the same to the last bit on every machine
        finite = np.isfinite(one.values)
        assert y[~finite].tobytes() == one.values[~finite].tobytes()
        np.testing.assert_allclose(y[finite], one.values[finite], rtol=1e-5, atol=1e-4 * one.values[finite].std())
    else:
        assert sha256(y.astype(y.dtype.newbyteorder("<")).tobytes()).hexdigest() == one.decoded["sha256"]
