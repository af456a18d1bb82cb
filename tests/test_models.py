"""Weights are found by name or by content, travel with stores, and are missed with a remedy."""

import json
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner, Result
from safetensors.numpy import load, save

import isopress
from isopress.cli.main import main
from isopress.codec import model_files
from isopress.codec.errors import ArgumentError, CorruptPayloadError, ModelNotFoundError
from isopress.codec.model_files import PACKAGE_FOLDER, SUFFIX, describe, find, folders, installed, user_folder
from isopress.codec.weights import load_pyramid
from isopress.format import Isopress, IsopressCodec
from isopress.format.models import embed, install, needed
from tests.contract import smooth

SHIPPED = (PACKAGE_FOLDER / f"pyramid-0.1{SUFFIX}").read_bytes()


def pyramid(note: str) -> bytes:
    """Return weights that are the shipped ones but for a note, so that no folder has them."""
    return save(load(SHIPPED), metadata={"kind": "pyramid", "note": note})


def vaeformer() -> bytes:
    return save({"a": np.zeros(3, "f4")}, metadata={"kind": "vaeformer"})


MINE = pyramid("mine")
MINE_ID = sha256(MINE).hexdigest()


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who has no weights yet, and no other folder but that of the package."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("ISOPRESS_MODELS", raising=False)
    return tmp_path / "data" / "isopress" / "models"


@pytest.fixture
def extra(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the environment variable names, with weights called `mine`."""
    folder = tmp_path / "extra"
    put(folder, "mine", MINE)
    monkeypatch.setenv("ISOPRESS_MODELS", str(folder))
    return folder


def put(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{SUFFIX}"
    path.write_bytes(content)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def in_a_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- looking for files ------------------------------------------------------------------------------------------------


def test_folders_are_the_package_then_the_variable_then_the_user(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folders() == (PACKAGE_FOLDER, user)
    a, b = tmp_path / "a", tmp_path / "b"
    monkeypatch.setenv("ISOPRESS_MODELS", model_files.os.pathsep.join([str(a), "", str(b), str(a)]))
    assert folders() == (PACKAGE_FOLDER, a, b, user)


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_DATA_HOME", "/data", "/data/isopress/models"),
        ("linux", "XDG_DATA_HOME", "relative", "/home/me/.local/share/isopress/models"),
        ("linux", "XDG_DATA_HOME", "", "/home/me/.local/share/isopress/models"),
        ("darwin", "XDG_DATA_HOME", "/data", "/home/me/Library/Application Support/isopress/models"),
        ("win32", "LOCALAPPDATA", "/local", "/local/isopress/models"),
        ("win32", "LOCALAPPDATA", "", "/home/me/AppData/Local/isopress/models"),
    ],
)
def test_the_folder_of_the_user_is_where_the_system_keeps_data(
    platform: str, variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv(variable, value)
    assert user_folder() == Path(expected)


def test_a_name_means_the_file_in_the_first_folder(extra: Path, user: Path) -> None:
    put(user, "mine", pyramid("hidden"))
    put(extra, "pyramid-0.1", pyramid("also hidden"))
    put(user, "other", pyramid("other"))
    assert find("mine", "pyramid").path == extra / f"mine{SUFFIX}"
    assert find("pyramid-0.1", "pyramid").sha256 == sha256(SHIPPED).hexdigest()
    assert find("other").metadata == {"kind": "pyramid", "note": "other"}


def test_a_sha256_means_the_content_whatever_the_file_is_called(extra: Path, user: Path) -> None:
    put(user, "pyramid-0.2", MINE)
    put(user, MINE_ID, pyramid("not what it says"))
    for digits in (16, 32, 64):
        found = find(MINE_ID[:digits].upper(), "pyramid")
        assert (found.sha256, found.path) == (MINE_ID, extra / f"mine{SUFFIX}")
    with pytest.raises(ModelNotFoundError, match="no pyramid weights '"):
        find(MINE_ID[:15], "pyramid")
    (extra / f"mine{SUFFIX}").unlink()
    assert find(MINE_ID).path == user / f"pyramid-0.2{SUFFIX}"
    (user / f"pyramid-0.2{SUFFIX}").unlink()
    with pytest.raises(ModelNotFoundError, match=rf"damaged, or of another kind: {user / MINE_ID}"):
        find(MINE_ID)


@pytest.mark.parametrize("name", ["nix", "ab" * 16])
def test_missing_weights_are_an_error_that_tells_where_and_what_to_do(name: str, extra: Path, user: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        load_pyramid(name)
    message = str(caught.value)
    for part in (name, *map(str, folders()), "mine, pyramid", "isopress models install STORE_OR_FILE"):
        assert part in message.replace("pyramid-0.1, pyramid-0.2, mine", "mine, pyramid"), part


def test_weights_of_another_kind_are_not_taken_for_a_pyramid(extra: Path) -> None:
    path = put(extra, "former", vaeformer())
    assert find("former", "vaeformer").kind == find("former").kind == "vaeformer"
    with pytest.raises(ModelNotFoundError, match="'former' are vaeformer weights"):
        load_pyramid("former")
    with pytest.raises(ModelNotFoundError):
        load_pyramid(describe(path).sha256)
    put(extra, "odd", save({"a": np.zeros(3, "f4")}, metadata={"kind": "odd"}))
    assert find("odd").kind == "unknown"
    assert {weights.name for weights in installed("vaeformer")} == {
        "vaeformer-0.3",
        "vaeformer-0.4",
        "vaeformer-0.5",
        "former",
    }


@pytest.mark.parametrize("content", [b"", b"junk", SHIPPED[:-1], SHIPPED + b"\0", b"\2" + bytes(7) + b"[]"])
def test_what_is_no_whole_file_of_weights_is_passed_over(content: bytes, extra: Path) -> None:
    path = put(extra, "broken", content)
    assert "broken" not in [weights.name for weights in installed()]
    assert find(MINE_ID).name == "mine"
    with pytest.raises(ArgumentError, match="not a whole safetensors file"):
        describe(path)
    with pytest.raises(ModelNotFoundError):
        find(sha256(content).hexdigest())


def test_a_file_that_changes_after_it_was_found_is_noticed(extra: Path) -> None:
    found = find("mine")
    assert found.read() == MINE
    changed = pyramid("changed " * 9)  # of another size: two changes in one tick of the clock look alike
    put(extra, "mine", changed)
    with pytest.raises(ModelNotFoundError, match="has changed"):
        found.read()
    assert find("mine").sha256 == sha256(changed).hexdigest()  # its metadata comes in any order: made once


def test_weights_from_any_folder_code_and_decode(extra: Path) -> None:
    x = smooth(24, 30).astype("f4")
    payload = isopress.compress(x, bound=0.05, model="mine")
    assert isopress.inspect(payload).models == (MINE_ID[:32],)
    np.testing.assert_array_equal(isopress.decompress(payload), isopress.decompress(isopress.compress(x, bound=0.05)))
    assert load_pyramid("mine") is load_pyramid(MINE_ID) is load_pyramid(MINE_ID[:16])


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


def files(store: Path) -> dict[str, bytes]:
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_adds_the_weights_a_store_needs_and_changes_nothing_else(
    kind: str, extra: Path, tmp_path: Path
) -> None:
    store = write(tmp_path / "store.zarr", kind)
    before = files(store)
    assert needed(store) == {MINE_ID[:32]}
    (copy,) = embed(store)
    assert (copy.new, copy.weights.sha256) == (True, MINE_ID)
    after = files(store)
    assert after[f"_models/{MINE_ID}{SUFFIX}"] == MINE
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"_models"}
    (again,) = embed(store)
    assert not again.new
    assert files(store) == after


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


def test_compress_embeds_at_once_also_what_joint_variables_need(user: Path, tmp_path: Path) -> None:
    dims = ("time", "lat", "lon")
    xr.Dataset({"u": (dims, X), "v": (dims, X + 1)}).to_netcdf(tmp_path / "in.nc")
    options = ["--joint", "u,v", "--error", "0.05", "--context", "block", "--embed-models"]
    result = run("compress", tmp_path / "in.nc", tmp_path / "out.zarr", *options)
    assert result.exit_code == 0, result.stderr
    assert f"{len(find('pyramid-0.2').read()) / 1e6:.1f} MB of it weights" in " ".join(result.stdout.split())
    assert [path.stem for path in (tmp_path / "out.zarr" / "_models").glob("*.safetensors")] == [
        find("pyramid-0.2").sha256
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
        for name, content in files(store).items():
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


@pytest.mark.parametrize("kind", ["directory", "zip"])
def test_a_store_is_read_elsewhere_once_its_weights_are_installed(
    kind: str, extra: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert missed.stderr.startswith("isopress: no pyramid weights with sha256")
    (copy,) = install(zipped(store) if kind == "zip" else store)
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
        "pyramid-0.1": (MINE, "the name pyramid-0.1 is taken by other weights"),
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
    store = write(tmp_path / "store.zarr", "v3", "pyramid-0.1")
    with pytest.raises(ArgumentError, match=r"carries no weights.*isopress models embed STORE"):
        install(store)
    put(store / "_models", "0" * 64, MINE)
    with pytest.raises(ArgumentError, match="is damaged"):
        install(store)
    assert not user.exists()


# --- the command ------------------------------------------------------------------------------------------------------


def test_list_shows_every_file_and_where_it_is(extra: Path) -> None:
    result = run("models", "list")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.strip().startswith("mine")]
    assert line.split()[:5] == ["mine", "pyramid", MINE_ID[:16], *f"{len(MINE) / 1e6:.1f} MB".split()]
    listed = json.loads(run("models", "list", "--json").stdout)
    assert listed["folders"] == list(map(str, folders()))
    assert [model["name"] for model in listed["models"]] == [weights.name for weights in installed()]
    assert {"name", "kind", "sha256", "nbytes", "path"} == set(listed["models"][0])


def test_show_tells_metadata_and_model_card(extra: Path) -> None:
    assert "note: mine" in run("models", "show", MINE_ID[:20]).stdout
    assert "# pyramid-0.2" in run("models", "show", "pyramid-0.2").stdout
    record = json.loads(run("models", "show", extra / f"mine{SUFFIX}", "--json").stdout)
    assert (record["metadata"]["note"], record["card"], record["sha256"]) == ("mine", None, MINE_ID)
    missing = run("models", "show", "nix")
    assert missing.exit_code == 2
    assert missing.stderr.count("\n") == 1


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


def test_listing_loads_neither_torch_nor_codec_nor_zarr(user: Path) -> None:
    code = (
        "import sys\nfrom isopress.cli.main import main\n"
        "try: main(['models', 'list', '--json'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'constriction', 'safetensors', 'zarr'} & set(sys.modules)"
    )
    done = in_a_fresh_process(code)
    assert done.returncode == 0, done.stderr
