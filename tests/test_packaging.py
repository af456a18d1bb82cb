"""What pyproject.toml lists by hand is what is there."""

import tomllib
import zlib
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import isopress

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = SETTINGS["tool"]["setuptools"]
ROOMS = ("codec", "format", "cli")


def test_the_listed_packages_are_the_folders_that_hold_modules() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    folders.remove("format/site")  # makes the site, and is no part of the package
    assert {SETUPTOOLS["package-dir"][package] for package in SETUPTOOLS["packages"]} == folders
    assert set(SETUPTOOLS["package-dir"]) == set(SETUPTOOLS["packages"])


def test_every_entry_point_resolves_to_a_codec_of_its_name() -> None:
    (numcodecs_entry,) = entry_points(group="numcodecs.codecs", name="isopress")
    assert numcodecs_entry.load().codec_id == "isopress"
    (zarr_entry,) = entry_points(group="zarr.codecs", name="isopress")
    assert zarr_entry.load()(mode="lossless").to_dict()["name"] == "isopress"
    (command,) = entry_points(group="console_scripts", name="isopress")
    assert callable(command.load())


def test_every_public_name_resolves() -> None:
    for module in (isopress, isopress.format):
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_dir_lists_the_public_names_and_nothing_else() -> None:
    errors = {"IsopressError", "ArgumentError", "BoundError", "ModelNotFoundError", "PayloadError"}
    assert set(dir(isopress)) == errors | {
        "__version__",
        "IsopressCodec",
        "compress",
        "decompress",
        "encoding",
        "inspect",
    }
    assert dir(isopress.format) == sorted(isopress.format.__all__)


def test_the_version_is_written_in_one_place() -> None:
    assert isopress.__version__ == SETTINGS["project"]["version"] == version("isopress")


def test_the_package_data_holds_the_spec_the_type_marker_and_the_weights() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT / SETUPTOOLS["package-dir"][package]
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing matches {pattern}"
    assert (files("isopress.format") / "SPEC.md").is_file()
    assert (files("isopress") / "py.typed").is_file()
    weights = list((ROOT / "codec").rglob("*.safetensors"))
    assert {path.relative_to(ROOT / "codec").parent.as_posix() for path in weights} == {"models"}


def test_what_is_shipped_stays_below_four_megabytes() -> None:
    folders = [(ROOT / SETUPTOOLS["package-dir"][name], ["*.py"]) for name in SETUPTOOLS["packages"]]
    folders += [(ROOT / SETUPTOOLS["package-dir"][name], data) for name, data in SETUPTOOLS["package-data"].items()]
    files_of = {path for folder, patterns in folders for pattern in patterns for path in folder.glob(pattern)}
    assert sum(len(zlib.compress(path.read_bytes())) for path in files_of) < 4e6
