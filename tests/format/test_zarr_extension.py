"""What is kept for the registry of Zarr extensions is what the codec does."""

import json
import re
from dataclasses import fields

import numpy as np
import pytest
import zarr

from isopress.codec.errors import UnsupportedVersionError
from isopress.codec.limits import MAX_EFFORT
from isopress.format.payload import VERSION
from isopress.format.settings import CONTEXTS, MODES, Settings
from isopress.format.zarr.v3_codec import IsopressCodec
from tests.make_zarr_sample import BOUND, FOLDER, SAMPLE, values

WHOLE = json.loads((FOLDER / "schema.json").read_text())
SCHEMA = WHOLE["properties"]["configuration"]


def test_the_schema_is_one_and_takes_what_the_codec_writes_and_nothing_else() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator.check_schema(WHOLE)
    for settings in ({"mode": "lossless"}, {"mode": "abs", "bound": [0.1, 0.5]}, {"mode": "latent", "ratio": 200}):
        assert validator(WHOLE).is_valid(IsopressCodec(**settings).to_dict())
    for wrong in ({"mode": "other"}, {"bound": 0.1}, {"mode": "abs", "bound": -1}, {"mode": "abs", "quality": 3}):
        assert not validator(WHOLE).is_valid({"name": "isopress", "configuration": wrong})


def test_the_name_and_the_files_are_as_the_registry_asks() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_]+", WHOLE["properties"]["name"]["const"])
    assert {"README.md", "schema.json", "examples"} <= {path.name for path in FOLDER.iterdir()}
    assert "## Current maintainers" in (FOLDER / "README.md").read_text()


def test_the_schema_has_every_setting_and_its_choices() -> None:
    known = SCHEMA["properties"]
    assert list(known) == [field.name for field in fields(Settings)]
    assert sorted(known["mode"]["enum"]) == sorted(MODES)
    assert known["context"]["enum"] == list(CONTEXTS)
    assert known["effort"]["maximum"] == MAX_EFFORT
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in text for name in known)


def test_the_example_is_what_the_codec_writes() -> None:
    example = json.loads((FOLDER / "examples" / "zarr.json").read_text())
    assert example == json.loads((SAMPLE / "zarr.json").read_text())
    assert example["codecs"] == [IsopressCodec(mode="abs", bound=BOUND).to_dict()]


def test_the_sample_is_read_by_the_version_that_wrote_it_and_refused_by_others() -> None:
    array = zarr.open_array(SAMPLE, mode="r")
    written = tuple((SAMPLE / "c" / "0" / "0" / "0").read_bytes()[4:6])
    if written == VERSION:
        assert np.abs(np.asarray(array[...]) - values()).max() <= BOUND
    else:
        with pytest.raises(UnsupportedVersionError, match=r"version \d+\.\d+"):
            array[...]
