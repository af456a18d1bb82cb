"""Weights travel with stores, and are installed from them."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from safetensors.numpy import save

from isopress.codec.errors import ArgumentError, CorruptPayloadError
from isopress.codec.models.registry import SUFFIX, find
from isopress.format import Isopress, IsopressCodec
from isopress.format.report.info import read_report
from isopress.format.store.embedded_models import embed, install, needed
from tests.contract import smooth
from tests.datasets import contents
from tests.model_folders import MINE, MINE_ID, in_a_fresh_process, put, run

# --- copies in stores -------------------------------------------------------------------------------------------------

X = smooth(4, 20, 24).astype("f4")


def write(path: Path, kind: str, model: str = "mine") -> Path:
    """Write a store with a variable that needs `model` and one that needs no weights; return its path."""
    codec: dict[str, Any] = {"serializer": IsopressCodec(bound=0.05, model=model, context="field"), "compressors": ()}
    encoding = {
        "v2": {"compressors": [Isopress(bound=0.05, model=model, context="field")], "chunks": (2, 20, 24)},
        "v3": codec | {"chunks": (2, 20, 24)},
        "v3 shards": codec | {"chunks": (1, 20, 24), "shards": (2, 20, 24)},
    }[kind]
    dataset = xr.Dataset({"t": (("time", "lat", "lon"), X), "plain": ("time", np.arange(4))})
    dataset.to_zarr(path, zarr_format=int(kind[1]), encoding={"t": encoding}, consolidated=kind == "v2")  # type: ignore[call-overload]
    return path


KINDS = ("v2", "v3", "v3 shards")


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_adds_the_weights_a_store_needs_and_changes_nothing_else(
    kind: str, extra: Path, tmp_path: Path
) -> None:
    store = write(tmp_path / "store.zarr", kind)
    before = contents(store)
    assert needed(store) == {MINE_ID[:32]}
    (copy,) = embed(store)
    assert (copy.new, copy.weights.sha256) == (True, MINE_ID)
    after = contents(store)
    assert after[f"_models/{MINE_ID}{SUFFIX}"] == MINE
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"_models"}
    (again,) = embed(store)
    assert not again.new
    assert contents(store) == after


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("kind", ["v2", "v3"])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_a_store_with_weights_is_read_as_before_without_a_warning(
    kind: str, consolidated: bool, extra: Path, tmp_path: Path
) -> None:
    store = write(tmp_path / "store.zarr", kind)
    if consolidated:
        zarr.consolidate_metadata(store)
    embed(store)
    with xr.open_zarr(store, consolidated=consolidated) as opened:
        assert set(opened.variables) == {"t", "plain"}
        assert float(abs(opened.t - X).max()) <= 0.05
    group = zarr.open_group(store, mode="r", use_consolidated=consolidated)
    assert {name for name, _ in group.arrays()} == {"t", "plain"}
    assert ("_models" in group) == (not consolidated)
    assert not run("verify", store, "--against", store).exit_code


def test_damaged_copies_in_a_store_are_replaced(extra: Path, tmp_path: Path) -> None:
    store = write(tmp_path / "store.zarr", "v3")
    target = put(store / "_models", MINE_ID, b"damaged")
    (copy,) = embed(store)
    assert copy.new
    assert target.read_bytes() == MINE


def test_a_store_that_needs_no_weights_gets_none(user: Path, tmp_path: Path) -> None:
    xr.Dataset({"t": ("x", np.arange(9.0))}).to_zarr(tmp_path / "plain.zarr", zarr_format=3, consolidated=False)
    assert embed(tmp_path / "plain.zarr") == []
    assert not (tmp_path / "plain.zarr" / "_models").exists()
    assert "needs no weights" in run("models", "embed", tmp_path / "plain.zarr").stdout


def test_compress_embeds_at_once_what_blocks_need(user: Path, tmp_path: Path) -> None:
    dims = ("time", "lat", "lon")
    xr.Dataset({"u": (dims, X), "v": (dims, X + 1)}).to_netcdf(tmp_path / "in.nc")
    options = ["--error", "0.05", "--context", "block", "--embed-models"]
    result = run("compress", tmp_path / "in.nc", tmp_path / "out.zarr", *options)
    assert result.exit_code == 0, result.stderr
    assert f"{len(find('block-0.8').read()) / 1e3:.1f} kB of it weights" in " ".join(result.stdout.split())
    assert [path.stem for path in (tmp_path / "out.zarr" / "_models").glob("*.safetensors")] == [
        find("block-0.8").sha256
    ]
    with xr.open_zarr(tmp_path / "out.zarr") as opened:
        assert float(abs(opened.v - X - 1).max()) <= 0.05 + 1e-6
    assert not run("verify", tmp_path / "out.zarr", "--against", tmp_path / "in.nc").exit_code


def test_zipped_and_remote_stores_cannot_be_changed(extra: Path, tmp_path: Path) -> None:
    store = zipped(write(tmp_path / "store.zarr", "v3"))
    with pytest.raises(ArgumentError, match="unzip it, use the directory, and zip that again"):
        embed(store)
    with pytest.raises(ArgumentError, match="download it first"):
        embed("https://example.com/store.zarr")
    with pytest.raises(ArgumentError, match="no such file or directory"):
        embed(tmp_path / "nowhere")


def zipped(store: Path) -> Path:
    """Zip a store as a folder in an archive."""
    target = store.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents(store).items():
            archive.writestr(f"{store.name}/{name}", content)
    return target


def test_damaged_and_foreign_chunks_are_named(extra: Path, tmp_path: Path) -> None:
    store = write(tmp_path / "store.zarr", "v3")
    chunk = store / "t" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:30])
    with pytest.raises(CorruptPayloadError, match="t/c/1/0/0"):
        needed(store)
    chunk.write_bytes(b"compressed again")
    with pytest.raises(ArgumentError, match="codecs behind isopress are not supported"):
        needed(store)


# --- copies for the user ----------------------------------------------------------------------------------------------


def test_a_store_is_read_elsewhere_once_its_weights_are_installed(
    extra: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path / "store.zarr", "v3")
    embed(store)
    monkeypatch.delenv("ISOPRESS_MODELS")
    shutil.rmtree(extra)
    read = f"import xarray as xr; print(float(xr.open_zarr({str(store)!r}, consolidated=False).t.mean()))"
    missed = in_a_fresh_process(read)
    assert missed.returncode
    assert f"ModelNotFoundError: no pyramid weights with sha256 {MINE_ID[:32]}" in missed.stderr
    assert str(user) in missed.stderr
    verify = ["verify", str(store), "--against", str(store)]
    missed = in_a_fresh_process(f"from isopress.cli.main import main; main({verify})")
    assert missed.returncode == 2  # not 1: that would be a verdict on the store
    assert missed.stderr.splitlines()[-1].startswith("isopress: no pyramid weights with sha256")
    (copy,) = install(zipped(store))
    assert (copy.new, copy.weights.path) == (True, user / f"{MINE_ID}{SUFFIX}")
    found = in_a_fresh_process(read)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) == pytest.approx(float(X.mean()), abs=0.05)
    (again,) = install(store)
    assert (again.new, again.weights.path) == (False, copy.weights.path)


def test_a_file_is_installed_under_its_name_with_its_card(user: Path, tmp_path: Path) -> None:
    path = put(tmp_path, "mine", MINE)
    path.with_suffix(".md").write_text("# mine\n")
    (copy,) = install(path)
    assert copy.weights.path == user / f"mine{SUFFIX}"
    assert find("mine").read() == MINE
    assert (user / "mine.md").read_text() == "# mine\n"
    assert sorted(path.name for path in user.iterdir()) == ["mine.md", f"mine{SUFFIX}"]


def test_what_cannot_be_installed_is_refused(user: Path, tmp_path: Path) -> None:
    bad = {
        "field-0.9": (MINE, "the name field-0.9 is taken by other weights"),
        "cut": (MINE[:-1], "no whole safetensors file"),
        "odd": (save({"a": np.zeros(1)}), "a kind that is not known here"),
    }
    for name, (content, reason) in bad.items():
        with pytest.raises(ArgumentError, match=reason):
            install(put(tmp_path, name, content))
    with pytest.raises(ArgumentError, match="no such file"):
        install(tmp_path / "nowhere.zarr")
    with pytest.raises(ArgumentError, match="neither a Zarr store nor"):
        install(tmp_path)
    store = write(tmp_path / "store.zarr", "v3", "field-0.9")
    with pytest.raises(ArgumentError, match=r"carries no weights.*isopress models embed STORE"):
        install(store)
    put(store / "_models", "0" * 64, MINE)
    with pytest.raises(ArgumentError, match="is damaged"):
        install(store)
    assert not user.exists() or not list(user.iterdir())


def test_copies_in_a_store_that_are_no_files_are_refused_at_once(extra: Path, user: Path, tmp_path: Path) -> None:
    store = write(tmp_path / "store.zarr", "v3")
    embed(store)
    copy = store / "_models" / f"{MINE_ID}{SUFFIX}"
    copy.rename(tmp_path / "secret")
    shutil.rmtree(extra)
    for plant in (lambda: copy.symlink_to(tmp_path / "secret"), lambda: os.mkfifo(copy), copy.mkdir):
        plant()
        with pytest.raises(ArgumentError, match=r"symbolic link|no file"):
            install(store)
        assert read_report(store).models_nbytes < 10_000
        copy.rmdir() if copy.is_dir() and not copy.is_symlink() else copy.unlink()
    assert not user.exists() or not list(user.iterdir())


def test_a_link_in_the_place_of_the_folder_leads_nowhere(extra: Path, user: Path, tmp_path: Path) -> None:
    store = write(tmp_path / "store.zarr", "v3")
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path / "elsewhere", MINE_ID, MINE)
    before = contents(tmp_path / "elsewhere")
    (store / "_models").symlink_to(tmp_path / "elsewhere")
    for use in (embed, install):
        with pytest.raises(ArgumentError, match="symbolic link"):
            use(store)
    assert contents(tmp_path / "elsewhere") == before
    assert not user.exists() or not list(user.iterdir())


def test_embed_and_install_tell_what_they_did(extra: Path, user: Path, tmp_path: Path) -> None:
    store = write(tmp_path / "store.zarr", "v2")
    assert run("models", "embed", store).stdout == (
        f"{MINE_ID[:16]} pyramid: copied to {store / '_models' / MINE_ID}{SUFFIX}\n"
    )
    assert "there already" in run("models", "embed", store).stdout
    assert "known already" in run("models", "install", store).stdout
    shutil.rmtree(extra)
    (installed_now,) = json.loads(run("models", "install", store, "--json").stdout)["models"]
    assert (installed_now["new"], installed_now["path"]) == (True, str(user / f"{MINE_ID}{SUFFIX}"))
    assert run("models", "install", tmp_path / "nowhere").exit_code == 2
