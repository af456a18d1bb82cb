"""A source and its store, side by side: figures that are known, verdicts, sampling, derived fields, the page."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import isopress.xarray  # noqa: F401  # for ds.isopress
from isopress.cli.main import main
from isopress.format.report.compare import compare as comparing
from isopress.format.report.compare import derived, spectra
from isopress.format.report.compare.compare import compare, spread
from isopress.format.report.compare.figures import coastline
from isopress.format.report.compare.grid import Grid
from isopress.format.report.compare.metrics import Merit, dssim
from isopress.format.report.compare.records import CompareReport, Comparison
from isopress.format.report.words import degrees, ratio_text
from isopress.format.store.write import write
from tests.datasets import errors, save_netcdf
from tests.fields import spectral_field, sphere_field

AXES = {
    "time": ("time", np.arange(3), {"units": "hours since 2020-01-01"}),
    "level": ("level", [500.0, 850.0], {"units": "hPa"}),
    "latitude": ("latitude", np.linspace(90, -90, 33), {"units": "degrees_north"}),
    "longitude": ("longitude", np.arange(64) * 5.625, {"units": "degrees_east"}),
}


def dataset() -> xr.Dataset:
    """Return winds, temperature, humidity and geopotential on two levels and three times, an ocean and a series."""
    field = sphere_field(33, 64)
    shifted = np.stack([np.stack([np.roll(field, 3 * t + 9 * k, 1) for k in range(2)]) for t in range(3)])
    dims = ("time", "level", "latitude", "longitude")
    parts = {"u": (10, 0, "m s**-1"), "v": (8, 0, "m s**-1"), "t": (10, 280, "K"), "q": (1e-3, 4e-3, "kg kg**-1")}
    ds = xr.Dataset(coords=AXES, attrs={"title": "made up"})
    for turn, (name, (factor, offset, units)) in enumerate(parts.items()):
        values = np.maximum(offset + factor * np.roll(shifted, 5 * turn, -1), 1e-6 if name == "q" else -np.inf)
        ds[name] = (dims, values.astype("f4"), {"units": units})
    ds["z"] = (dims, (5e4 + 1e3 * shifted).astype("f4"), {"units": "m**2 s**-2"})
    ds["sst"] = (dims[2:], np.where(field > 0, 290 + field, np.nan).astype("f4"), {"units": "K"})
    ds["series"] = (("time",), np.array([1.0, 2.0, 4.0], "f4"), {"units": "K"})
    return ds


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_netcdf(dataset(), tmp_path_factory.mktemp("source") / "made_up.nc")


@pytest.fixture(scope="module")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "made_up.zarr"
    write(str(source), path, errors=errors("u=0.1", "v=0.1", "t=0.05", "q=pointwise:1%"))
    return path


@pytest.fixture(scope="module")
def report(source: Path, store: Path) -> CompareReport:
    return compare(str(source), str(store))


def named(report: CompareReport, name: str) -> Comparison:
    (found,) = [variable for variable in report.variables if variable.name == name]
    return found


def test_figures_are_those_that_numpy_computes(report: CompareReport, source: Path, store: Path) -> None:
    with xr.open_dataset(source) as original, xr.open_zarr(store) as decoded:
        x, y = (np.asarray(ds["t"].values, float) for ds in (original, decoded))
        weights = np.cos(np.deg2rad(original["latitude"].values))[:, None]
    merit = named(report, "t").merit
    assert merit.values == x.size
    assert merit.max_error == pytest.approx(np.abs(y - x).max())
    assert merit.rmse == pytest.approx(np.sqrt(np.average((y - x) ** 2, weights=np.broadcast_to(weights, x.shape))))
    assert merit.bias == pytest.approx(np.average(y - x, weights=np.broadcast_to(weights, x.shape)), abs=1e-9)
    assert merit.pearson == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-12)
    assert merit.psnr == pytest.approx(20 * np.log10(np.ptp(x) / merit.rmse))
    assert merit.row_rmse == pytest.approx(np.sqrt(((y - x) ** 2).mean((0, 1, 3))))
    assert merit.worst is not None
    field = np.unravel_index(merit.worst.field, (3, 2))
    assert abs(y - x)[(*field, merit.worst.row, merit.worst.column)] == merit.max_error
    assert merit.histogram.sum() == x.size


def test_every_variable_with_a_limit_is_compared_and_says_whether_it_is_kept(report: CompareReport) -> None:
    assert report.kept
    assert not report.sampled
    assert {variable.name for variable in report.variables if not variable.derived} == {*"uvtqz", "sst", "series"}
    assert {"time", "latitude"} <= set(report.exact)
    for variable in report.variables:
        assert variable.kept
        assert 0 < variable.merit.pearson <= 1
        assert re.fullmatch(r"(bound kept; )?[0-4] of 4 figures pass", variable.verdict)


def test_a_broken_bound_is_seen(source: Path, tmp_path: Path) -> None:
    other = dataset()[["t"]]
    other["t"][1, 1, 5, 6] += 1
    copy = tmp_path / "other.zarr"
    write(str(save_netcdf(other, tmp_path / "other.nc")), copy, errors=errors("t=0.05"))
    found = named(compare(str(source), str(copy)), "t")
    assert found.violations == 1
    assert "BROKEN" in found.verdict
    assert found.zoom is not None
    assert found.zoom.label == "time 2020-01-01T01:00, level 850 hPa"
    result = CliRunner().invoke(main, ["compare", str(source), str(copy), "--json"])
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["kept"]


def test_numbers_that_stand_for_missing_count_in_nothing(tmp_path: Path) -> None:
    field = (290 + sphere_field(33, 64)).astype("f4")
    ds = xr.Dataset(
        {"sst": (("latitude", "longitude"), np.where(field > 290, field, np.float32(-9999)), {"units": "K"})}
    )
    write(str(save_netcdf(ds, tmp_path / "s.nc")), tmp_path / "s.zarr", errors=errors("0.02"))
    found = named(compare(str(tmp_path / "s.nc"), str(tmp_path / "s.zarr")), "sst")
    assert found.merit.low > 280
    assert found.merit.values == (field > 290).sum()
    assert found.kept


def test_what_is_too_much_is_sampled_and_said(source: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_WINDOW_VALUES", 1000)
    found = compare(str(source), str(store), fields=2)
    assert found.sampled
    assert named(found, "t").compared == 2
    assert named(found, "t").window == (22, 44)
    assert "t 2 of 6 fields, 22 x 44 values in the middle of each" in repr(found)
    assert [index[0] for index in spread((24,), 4)] == [0, 8, 15, 23]


def test_winds_give_speed_vorticity_and_divergence() -> None:
    lat, lon = np.linspace(80, -80, 81), np.arange(180) * 2.0
    grid = Grid(lat, lon)
    phi, lam = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None]
    omega = 1e-5
    u = np.broadcast_to(omega * derived.EARTH_RADIUS * np.cos(phi), (81, 180))  # a solid body turns with omega
    v = np.zeros((81, 180))
    inner = slice(1, -1)
    assert derived.vorticity(grid, u, v)[inner] == pytest.approx(
        np.broadcast_to(2 * omega * np.sin(phi), u.shape)[inner], abs=2e-8
    )
    assert derived.divergence(grid, u, v)[inner] == pytest.approx(0, abs=1e-12)
    wave = np.sin(3 * lam) * np.cos(phi)
    assert derived.divergence(grid, wave, v)[40] == pytest.approx(
        3 * np.cos(3 * lam[0]) / derived.EARTH_RADIUS, rel=0.01, abs=1e-12
    )


def test_geostrophic_wind_and_humidity() -> None:
    lat, lon = np.linspace(60, 20, 81), np.arange(30) * 0.5
    omega, wind = derived.ROTATION, 10.0
    phi = np.deg2rad(lat)[:, None]
    z = (
        2 * omega * wind * derived.EARTH_RADIUS * np.cos(phi) * np.ones((1, 30))
    )  # u = -dz/dy / f is the same everywhere
    assert derived.geostrophic(Grid(lat, lon), z)[1:-1] == pytest.approx(wind, rel=1e-3)
    assert np.isnan(derived.geostrophic(Grid(lat - 40, lon), z)[1:-1]).all()
    kelvin = np.array([[273.16, 293.15]])
    saturated = 0.621981 * np.array([[611.21, 2338.0]]) / (101325 - 0.378019 * np.array([[611.21, 2338.0]]))
    assert derived.relative_humidity(kelvin, saturated, 101325) == pytest.approx(100, rel=3e-3)


def test_derived_fields_are_found_by_names_and_units(report: CompareReport) -> None:
    names = {variable.name: variable for variable in report.variables if variable.derived}
    assert set(names) == {
        "speed (u, v)",
        "vorticity (u, v)",
        "divergence (u, v)",
        "geostrophic wind (z)",
        "relative humidity (t, q)",
    }
    assert 0 < names["speed (u, v)"].merit.max_error <= 0.1 * np.sqrt(2) + 1e-6
    assert 0 < names["relative humidity (t, q)"].merit.max_error < 5


def test_spectra_see_what_smoothing_takes_away() -> None:
    x = spectral_field(64, 128, slope=1.0)
    smoothed = np.fft.irfft(np.fft.rfft(x, axis=1) * (np.arange(65) < 20), 128, axis=1)
    wavelengths = spectra.zonal_wavelengths(128)
    found = spectra.binned(wavelengths, spectra.zonal(x, True, None), spectra.zonal(smoothed, True, None))
    assert found.worst == pytest.approx(1, abs=0.01)
    assert 6 < found.kept_to < 9
    same = spectra.binned(wavelengths, *[spectra.zonal(x, True, None)] * 2)
    assert same.worst == 0
    wavelengths, power = spectra.cosine(np.cos(np.pi * (np.arange(96) + 0.5) * 12 / 96)[None].repeat(48, 0))
    assert wavelengths[np.argmax(power)] == pytest.approx(2 * 96 / 12, rel=0.05)


def test_similarity_is_1_for_the_same_and_less_for_noise() -> None:
    x = spectral_field(40, 60, slope=2.5)
    assert dssim(x, x) == pytest.approx(1)
    assert dssim(x, x + 0.2 * np.random.default_rng(0).normal(size=x.shape)) < 0.9
    masked = np.where(x > 1.5, np.nan, x)
    assert dssim(masked, masked) == pytest.approx(1)


def test_distributions_that_differ_have_a_small_p() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 200))
    for y, differs in ((x + rng.uniform(-0.01, 0.01, x.shape), False), (x + 0.2, True)):
        merit = Merit(1.0)
        merit.add(0, x, y, np.ones((100, 1)), 1)
        assert (merit.kolmogorov_smirnov()[1] < 0.05) == differs


def test_coastlines_are_where_they_are() -> None:
    lines = coastline()
    assert len(lines) > 10000
    near = np.hypot(lines[:, 0] - 18.4, lines[:, 1] + 34.2)  # Cape of Good Hope
    assert np.nanmin(near) < 0.5


def test_the_page_needs_nothing_else_and_pictures_are_files(source: Path, store: Path, tmp_path: Path) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "png"
    command = ["compare", str(source), str(store), "--var", "t", "--fields", "2"]
    result = CliRunner().invoke(main, [*command, "--report", str(page), "--png", str(folder)])
    assert result.exit_code == 0, result.stderr
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in text
    assert text.count("<section") == 2
    assert "4 other variables are stored exactly" in text  # the axes: that t alone was asked for makes no other exact
    assert 'type="range"' in text
    assert {"t-error-0.png", "t-original-1.png", "t-zonal.png", "t-zoom.png", "t-latitude.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / "t-error-0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not shutil.which("chromium"), reason="no headless browser")
def test_a_browser_shows_the_page_at_phone_and_desktop_width(report: CompareReport, tmp_path: Path) -> None:
    from isopress.format.report.compare.page import html

    script = (
        "<script>parent.postMessage(`w${document.documentElement.scrollWidth}/${document.images.length}`,'*')</script>"
    )
    page, frame = tmp_path / "page.html", tmp_path / "frame.html"
    small = CompareReport("s.nc", "s.zarr", (named(report, "sst"),), (), 2, 1, False)
    page.write_text(html(small).replace("</body>", script + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user", "--dump-dom"]
    for width in (390, 1300):  # in a frame: the window of a headless browser is never as narrow as a phone
        listen = "<script>onmessage=e=>document.title=e.data</script>"
        frame.write_text(f'{listen}<iframe src="page.html" width="{width}" height="900" frameborder="0"></iframe>')
        command = ["chromium", *options, "--window-size=1400,900", frame.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found = re.search(r"<title>w(\d+)/(\d+)</title>", done.stdout)
        assert found
        assert int(found[1]) <= width  # nothing to scroll sideways
        assert int(found[2]) == 8


def test_a_dataset_can_be_compared_with_what_it_was_made_of(source: Path, store: Path) -> None:
    with xr.open_zarr(store) as ds:
        found = ds.isopress.report(str(source), fields=1)
    assert found.kept
    assert "<td" in found._repr_html_()
    assert "bound kept" in repr(found)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "names", "text"),
    [(-33.0, "NS", "33 S"), (0.0, "NS", "0 N"), (10.25, "EW", "10.25 E"), (-8.0, "EW", "8 W")],
)
def test_places_have_no_negative_degrees(value: float, names: str, text: str) -> None:
    assert degrees(value, *names) == text


def test_what_grew_is_not_zero_times_smaller() -> None:
    assert [ratio_text(ratio) for ratio in (12.34, 1.0, 0.0123)] == ["12.3x", "1.0x", "0.012x"]
