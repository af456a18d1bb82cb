"""Presets: names and units to bounds."""

import pytest

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound
from isopress.format import units as own
from isopress.format.presets import PRESETS, QUANTITIES, preset_bound
from isopress.format.units import how_many, normalise_units


@pytest.mark.parametrize("units", ["m s**-1", "m s-1", "m/s", "m s^-1", "m.s-1", " m  s-1 "])
def test_units_have_one_spelling(units: str) -> None:
    assert normalise_units(units) == "m s-1"


@pytest.mark.parametrize(
    ("name", "attrs", "bounds"),
    [
        ("t2m", {"units": "K"}, (Bound("abs", 0.01), Bound("abs", 0.1), Bound("abs", 0.5))),
        ("anything", {"units": "degrees_Celsius"}, (Bound("abs", 0.01), Bound("abs", 0.1), Bound("abs", 0.5))),
        ("u", {"units": "m s**-1"}, (Bound("abs", 0.01), Bound("abs", 0.1), Bound("abs", 0.5))),
        ("msl", {"units": "Pa"}, (Bound("abs", 1.0), Bound("abs", 10.0), Bound("abs", 50.0))),
        ("z", {"units": "m**2 s**-2"}, (Bound("abs", 1.0), Bound("abs", 5.0), Bound("abs", 50.0))),
        ("w", {"units": "Pa s**-1"}, (Bound("abs", 0.001), Bound("abs", 0.01), Bound("abs", 0.05))),
        ("siconc", {"units": "%"}, (Bound("abs", 0.1), Bound("abs", 1.0), Bound("abs", 5.0))),
        ("tcc", {"units": "(0 - 1)"}, (Bound("abs", 0.001), Bound("abs", 0.01), Bound("abs", 0.05))),
        ("thing", {"units": "1"}, (Bound("range", 1e-4), Bound("range", 1e-3), Bound("range", 1e-2))),
        ("thing", {}, (Bound("range", 1e-4), Bound("range", 1e-3), Bound("range", 1e-2))),
    ],
)
def test_presets_know_quantities_by_name_and_units(name: str, attrs: dict, bounds: tuple[Bound, ...]) -> None:
    assert tuple(preset_bound(preset, name, attrs) for preset in PRESETS) == bounds


def test_a_floor_is_in_the_units_of_the_variable() -> None:
    assert preset_bound("science", "tp", {"units": "m"}) == Bound("pointwise", 0.01, 1e-5)
    millimetres = preset_bound("science", "tp", {"units": "mm"})
    assert (millimetres.value, millimetres.floor) == (0.01, pytest.approx(0.01))
    by_standard_name = {"units": "kg m**-2 s**-1", "standard_name": "precipitation_flux"}
    assert preset_bound("science", "rain", by_standard_name).mode == "pointwise"
    assert preset_bound("science", "q", {"units": "kg kg**-1"}) == Bound("pointwise", 0.01, 1e-8)


def test_a_name_without_its_unit_gets_no_physical_bound() -> None:
    assert preset_bound("science", "t2m", {"units": "furlong"}).mode == "range"
    assert preset_bound("science", "tcc", {"units": "oktas"}).mode == "range"


@pytest.mark.parametrize(
    ("units", "bound"),
    [
        *((text, 0.1) for text in ("C", "degC", "degree_C", "deg C", "Celsius", "degrees Celsius", "deg K", "°C")),
        *((text, 0.18) for text in ("degF", "degree_Fahrenheit", "Fahrenheit")),
        *(("kPa", 0.01), ("hectopascals", 0.1), ("mbar", 0.1), ("dPa", 100.0)),
        *((text, 0.1) for text in ("m/sec", "meters per second", "metre second-1", "m.s-1", "ms-1")),
        *(("km/h", 0.36), ("cm/s", 10.0), ("mph", 0.2237), ("kJ m-2", 3.6), ("MJ/m2", 0.0036), ("kW m-2", 0.001)),
        *(("watts per square meter", 1.0), ("hPa/h", 0.36), ("J/kg", 5.0)),
    ],
)
def test_units_are_known_however_they_are_written(units: str, bound: float) -> None:
    found = preset_bound("science", "x", {"units": units})
    assert (found.mode, found.value) == ("abs", pytest.approx(bound, rel=1e-3))


def test_a_rate_of_rain_is_no_wind_and_a_stress_no_pressure() -> None:
    for units in ("mm/day", "mm/h", "inch/day", "N m-2", "1", "(0 - 1)", "percent", "mol [/m2/s]", "", "psu"):
        assert preset_bound("science", "x", {"units": units}).mode == "range", units
    assert preset_bound("science", "pr", {"units": "inch/hour"}).mode == "pointwise"
    assert preset_bound("science", "q", {"units": "g/kg"}).floor == pytest.approx(1e-5)


def test_every_preset_is_looser_than_the_one_before() -> None:
    for quantity in QUANTITIES:
        unit = next(iter(quantity.units))
        values = [quantity.bound(preset, unit).value or 0 for preset in PRESETS]
        assert values == sorted(set(values)), quantity.label


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ArgumentError, match="archive, science, preview"):
        preset_bound("best", "t", {})  # type: ignore[arg-type]


def test_products_of_common_units_are_converted_as_cf_does_and_without_its_library(monkeypatch) -> None:
    references = ["m", "kg m-2 s-1", "m s-1", "Pa", "K", "m2 s-2", "W m-2", "Pa s-1", "1", "(0 - 1)", "%"]
    texts = ["mm", "km", "mm day-1", "g m-2 s-1", "knot", "hPa", "hPa h-1", "degC", "J kg-1", "kg m-1 s-2", "gpm", "1"]
    expected = {(a, b): own._as_cf_has_it(a, b) for a in texts for b in references}
    how_many.cache_clear()
    monkeypatch.setattr(own, "_registry", lambda: pytest.fail("pint was asked"))
    for (units, reference), number in expected.items():
        assert how_many(units, reference) == (None if number is None else pytest.approx(number, rel=1e-12))
    how_many.cache_clear()
