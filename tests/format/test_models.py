"""Weights are found by name or by content, are missed with a remedy, and can be listed."""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, save

import isopress
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.errors import ArgumentError, ModelNotFoundError
from isopress.codec.models import registry as model_files
from isopress.codec.models.registry import PACKAGE_FOLDER, SUFFIX, describe, find, folders, installed, user_folder
from isopress.format.store.embedded_models import install
from tests.contract import smooth
from tests.golden_payloads import GOLDEN
from tests.make_golden import SMALL
from tests.model_folders import MINE, MINE_ID, SHIPPED, in_a_fresh_process, latent, put, pyramid, run

# --- looking for files ------------------------------------------------------------------------------------------------


def test_folders_are_the_package_then_the_variable_then_the_user(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folders() == (PACKAGE_FOLDER, user)
    a, b = tmp_path / "a", tmp_path / "b"
    monkeypatch.setenv("ISOPRESS_MODELS", model_files.os.pathsep.join([str(a), "", str(b), str(a)]))
    assert folders() == (PACKAGE_FOLDER, a, b, user)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_the_folder_of_the_user_is_where_the_system_keeps_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for value, expected in (("/data", "/data"), ("", "/home/me/.local/share")):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert user_folder() == Path(expected, "isopress", "models")


def test_a_name_means_the_file_in_the_first_folder(extra: Path, user: Path) -> None:
    put(user, "mine", pyramid("hidden"))
    put(extra, "field-0.9", pyramid("also hidden"))
    put(user, "other", pyramid("other"))
    assert find("mine", "pyramid").path == extra / f"mine{SUFFIX}"
    assert find("field-0.9", "pyramid").sha256 == sha256(SHIPPED).hexdigest()
    assert find("other").metadata == {"kind": "pyramid", "note": "other"}


def test_a_sha256_means_the_content_whatever_the_file_is_called(extra: Path, user: Path) -> None:
    put(user, "block-0.8", MINE)
    put(user, MINE_ID, pyramid("not what it says"))
    for digits in (16, 32, 64):
        found = find(MINE_ID[:digits].upper(), "pyramid")
        assert (found.sha256, found.path) == (MINE_ID, extra / f"mine{SUFFIX}")
    with pytest.raises(ModelNotFoundError, match="no pyramid weights '"):
        find(MINE_ID[:15], "pyramid")
    (extra / f"mine{SUFFIX}").unlink()
    assert find(MINE_ID).path == user / f"block-0.8{SUFFIX}"
    (user / f"block-0.8{SUFFIX}").unlink()
    with pytest.raises(ModelNotFoundError, match=rf"damaged, or of another kind: {user / MINE_ID}"):
        find(MINE_ID)


@pytest.mark.parametrize("name", ["nix", "ab" * 16, "../data/mine", "n" * 300])
def test_missing_weights_are_an_error_that_tells_where_and_what_to_do(name: str, extra: Path, user: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        load_pyramid(name)
    message = str(caught.value)
    for part in (name, *map(str, folders()), "block-0.8, field-0.9, mine", "isopress models install STORE_OR_FILE"):
        assert part in message, part


def test_weights_of_another_kind_are_not_taken_for_a_pyramid(extra: Path) -> None:
    path = put(extra, "former", latent())
    assert find("former", "latent").kind == find("former").kind == "latent"
    with pytest.raises(ModelNotFoundError, match="'former' are latent weights"):
        load_pyramid("former")
    with pytest.raises(ModelNotFoundError):
        load_pyramid(describe(path).sha256)
    put(extra, "odd", save({"a": np.zeros(3, "f4")}, metadata={"kind": "odd"}))
    assert find("odd").kind == "unknown"
    assert {weights.name for weights in installed("latent")} == {"latent-0.8", "former"}


@pytest.mark.parametrize("content", [b"", b"junk", SHIPPED[:-1], SHIPPED + b"\0", b"\2" + bytes(7) + b"[]"])
def test_what_is_no_whole_file_of_weights_is_passed_over(content: bytes, extra: Path) -> None:
    path = put(extra, "broken", content)
    assert "broken" not in [weights.name for weights in installed()]
    assert find(MINE_ID).name == "mine"
    with pytest.raises(ArgumentError, match="not a whole safetensors file"):
        describe(path)
    with pytest.raises(ModelNotFoundError):
        find(sha256(content).hexdigest())


HEADER = '{"a":{"dtype":"F32","shape":[1],"data_offsets":%s}}'


def framed(header: str, nbytes: int = 4) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + bytes(nbytes)


@pytest.mark.parametrize(
    "content",
    {
        "text in data_offsets": framed(HEADER % '["0","4"]'),
        "numbers as text": framed(HEADER % '"04"'),
        "a tensor beyond the end": framed(HEADER % "[0,4000]"),
        "huge offsets": framed(HEADER % f"[0,{2**64}]"),
        "deeply nested JSON": framed("[" * 100_000 + "]" * 100_000),
        "deeply nested metadata": framed('{"__metadata__":' + '{"a":' * 100_000 + "0" + "}" * 100_001),
        "metadata of numbers": framed('{"__metadata__":{"kind":7}}', 0),
        "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    }.items(),
    ids=lambda item: item[0],
)
def test_hostile_files_are_no_weights(content: tuple[str, bytes], extra: Path, user: Path) -> None:
    path = put(extra, "hostile", content[1])
    assert "hostile" not in [weights.name for weights in installed()]
    with pytest.raises(ArgumentError, match="not a whole safetensors file"):
        describe(path)
    with pytest.raises(ArgumentError, match="no whole safetensors file"):
        install(path)
    with pytest.raises(ModelNotFoundError):
        isopress.compress(smooth(8, 9), bound=0.1, model="hostile")
    assert not user.exists() or not list(user.iterdir())


def test_a_pipe_and_a_folder_are_passed_over_at_once(extra: Path) -> None:
    os.mkfifo(extra / f"pipe{SUFFIX}")
    (extra / f"folder{SUFFIX}").mkdir()
    (extra / f"broken{SUFFIX}").symlink_to("nowhere")
    assert find("mine").sha256 == MINE_ID
    assert {weights.name for weights in installed()} >= {"mine"}
    for name in ("pipe", "folder"):
        with pytest.raises(ArgumentError, match="no weights"):
            install(extra / f"{name}{SUFFIX}")
        with pytest.raises(ModelNotFoundError):
            find(name)


@pytest.mark.parametrize("kind", ["pyramid", "latent"])
@pytest.mark.parametrize("tensors", [{"a": np.zeros(3, "f4")}, {"tables.frequencies": np.zeros((2, 2), "f4")}])
def test_weights_without_the_right_tensors_are_one_clear_error(
    tensors: dict[str, np.ndarray], kind: str, extra: Path, user: Path
) -> None:
    path = put(extra, "hollow", save(tensors, metadata={"kind": kind, "synthesis": "{}"}))
    for settings in ({"bound": 0.1}, {"mode": "latent", "ratio": 9}):
        with pytest.raises(ModelNotFoundError, match="hollow"):
            isopress.compress(smooth(8, 9), model="hollow", **settings)
    with pytest.raises(ArgumentError, match=f"hollow.safetensors does not hold {kind} weights"):
        install(path.rename(path.parent.parent / path.name))
    assert not list(user.iterdir())


@pytest.mark.parametrize(
    "changed",
    {
        "no network of a phase": {"D.0.weight": None},
        "a layer less": {"H.2.weight": None},
        "no bias": {"fine.V.0.bias": None},
        "one network of a group": {f"middle.{c}.{i}.weight": None for c in "HV" for i in range(3)},
        "a feature more": {"V.0.weight": np.zeros((80, 41), "i1")},
        "four numbers": {"fine.H.2.weight": np.zeros((4, 24), "i1")},
        "a shift of 65 bits": {"D.1.shift": np.full(64, 65, "i1")},
        "a shift for each input": {"D.1.shift": np.full(80, 5, "i1")},
        "tables of their own": {"tables.frequencies": np.ones((288, 999), "f4")},
        "half of a condition": {"H.kind": np.zeros((7, 80), "i4")},
    }.items(),
    ids=lambda item: item[0],
)
def test_pyramids_whose_tensors_do_not_fit_are_refused(
    changed: tuple[str, dict[str, np.ndarray | None]], user: Path, tmp_path: Path
) -> None:
    tensors = load(SHIPPED) | changed[1]
    whole = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(ArgumentError, match="does not hold pyramid weights"):
        install(put(tmp_path, "hostile", save(whole, metadata={"kind": "pyramid"})))
    assert not list(user.iterdir())


QUIET = np.zeros((3, 6, 2, 26), "i2")
FOUR = ("weight", (4, 64), "i1"), ("bias", (6, 4), "i4"), ("shift", (4,), "i1")


@pytest.mark.parametrize(
    "changed",
    {
        "a layer less": {"contexts.2.2.weight": None},
        "a feature more": {"contexts.1.0.weight": np.zeros((96, 96), "i1")},
        "four numbers": {f"contexts.0.2.{part}": np.zeros(shape, code) for part, shape, code in FOUR},
        "no quiet points": {"quiet": QUIET[..., :0]},
        "quiet points of two bands": {"quiet": QUIET[:2]},
        "quiet points of a fifth tail class": {"quiet": QUIET + np.int16(4)},
        "quiet points of a huge scale": {"quiet": QUIET + np.array([[1025], [0]], "i2")},
    }.items(),
    ids=lambda item: item[0],
)
def test_latents_whose_tensors_do_not_fit_are_refused(
    changed: tuple[str, dict[str, np.ndarray | None]], user: Path, tmp_path: Path
) -> None:
    file = PACKAGE_FOLDER / f"latent-0.8{SUFFIX}"
    tensors = load(file.read_bytes()) | changed[1]
    whole = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(ArgumentError, match="does not hold latent weights"):
        install(put(tmp_path, "hostile", save(whole, metadata=dict(describe(file).metadata))))
    assert not list(user.iterdir())


FORMER = GOLDEN / "models" / f"{SMALL}{SUFFIX}"


def vaeformer(**changed: str) -> bytes:
    """Return the weights of a VAEformer with other texts."""
    with safe_open(FORMER, "numpy") as tensors:
        return save(load(FORMER.read_bytes()), metadata=tensors.metadata() | changed)


def config(**changed: object) -> dict[str, str]:
    """Return the configuration of that VAEformer, in part another."""
    with safe_open(FORMER, "numpy") as tensors:
        return {"config": json.dumps(json.loads(tensors.metadata()["config"]) | changed)}


@pytest.mark.parametrize(
    "texts",
    {
        "no JSON": {"config": "{"},
        "deeply nested JSON": {"config": '{"a":' * 100_000},
        "deeply nested names": {"channels": "[" * 100_000},
        "a level beyond floats": {"channels": f'[["t", {10**400}], ["t", 500], ["u10", null]]'},
        "an endless level": {"channels": '[["t", Infinity], ["t", 500], ["u10", null]]'},
        "names of other channels": {"channels": '[["t", 850]]'},
        "too many blocks": config(depth=2**31),
        "blocks that are not there": config(depth=100),
        "too many latents": config(hyper_latents=2**31),
        "latents that are not there": config(hyper_latents=2**16),
        "a patch of a terabyte": config(kernel=[2**20, 2**20], stride=[2**20, 2**20]),
        "a large patch": config(kernel=[64, 64], stride=[64, 64]),
        "windows of text": config(windows="x"),
        "no heads": config(heads=0),
        "half a head": config(heads=0.5),
        "a huge MLP": config(mlp_ratio=1e300),
        "no number": config(mlp_ratio=float("nan")),
        "positions of nothing": config(positions=[0, 0]),
    }.items(),
    ids=lambda item: item[0],
)
def test_weights_of_vaeformers_with_hostile_texts_are_refused(
    texts: tuple[str, dict[str, str]], user: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="does not hold vaeformer weights"):
        install(put(tmp_path, "hostile", vaeformer(**texts[1])))
    assert not list(user.iterdir())


@pytest.mark.parametrize(
    "changed",
    [
        {"hyper.scale": np.full(4, 2000, "i2")},
        {"hyper.centre": np.full(4, 128, "i4")},
        {"hyper.tail": np.full(4, 4, "i1")},
        {"scales.last.shift": np.full(48, -128, "i1")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_weights_of_vaeformers_with_hostile_integers_are_refused(
    changed: dict[str, np.ndarray], user: Path, tmp_path: Path
) -> None:
    with safe_open(FORMER, "numpy") as tensors:
        hostile = save(load(FORMER.read_bytes()) | changed, metadata=tensors.metadata())
    with pytest.raises(ArgumentError, match="does not hold vaeformer weights"):
        install(put(tmp_path, "hostile", hostile))
    assert not list(user.iterdir())


def test_weights_of_vaeformers_are_installed_if_they_are_whole(user: Path, tmp_path: Path) -> None:
    (copy,) = install(put(tmp_path, "whole", vaeformer()))
    assert (copy.new, copy.weights.kind) == (True, "vaeformer")


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


# --- the command ------------------------------------------------------------------------------------------------------


def test_list_shows_every_file_and_where_it_is(extra: Path) -> None:
    result = run("models", "list")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.strip().startswith("mine")]
    assert line.split()[:5] == ["mine", "pyramid", MINE_ID[:16], *f"{len(MINE) / 1e3:.1f} kB".split()]
    listed = json.loads(run("models", "list", "--json").stdout)
    assert listed["folders"] == list(map(str, folders()))
    assert [model["name"] for model in listed["models"]] == [weights.name for weights in installed()]
    assert {"name", "kind", "sha256", "nbytes", "path"} == set(listed["models"][0])


def test_show_tells_metadata_and_model_card(extra: Path) -> None:
    assert "note: mine" in run("models", "show", MINE_ID[:20]).stdout
    assert "# block-0.8" in run("models", "show", "block-0.8").stdout
    record = json.loads(run("models", "show", extra / f"mine{SUFFIX}", "--json").stdout)
    assert (record["metadata"]["note"], record["card"], record["sha256"]) == ("mine", None, MINE_ID)
    missing = run("models", "show", "nix")
    assert missing.exit_code == 2
    assert missing.stderr.count("\n") == 1


def test_listing_loads_neither_torch_nor_codec_nor_zarr(user: Path) -> None:
    code = (
        "import sys\nfrom isopress.cli.main import main\n"
        "try: main(['models', 'list', '--json'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'constriction', 'zarr'} & set(sys.modules)"
    )
    done = in_a_fresh_process(code)
    assert done.returncode == 0, done.stderr
