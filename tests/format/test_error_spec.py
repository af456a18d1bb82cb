"""Errors as users say them, and presets for what they do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.format import units as own
from isopress.format.error_spec import FORMS, ErrorSpec, check_specs, format_bound, last_match, parse_error
from isopress.format.presets import PRESETS, QUANTITIES, preset_bound
from isopress.format.settings import Promise
from isopress.format.units import how_many, normalise_units

# --- limits as text: what every form means, reads back as, and is refused for -----------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern", "limit"),
    [
        ("0.1", "*", Bound("abs", 0.1)),
        ("abs:2", "*", Bound("abs", 2.0)),
        ("t2m=0.1", "t2m", Bound("abs", 0.1)),
        ("t2m=abs:1e-1", "t2m", Bound("abs", 0.1)),
        ("*=range:1e-3", "*", Bound("range", 1e-3)),
        ("range:0.1%", "*", Bound("range", 1e-3)),
        ("tp=pointwise:1%", "tp", Bound("pointwise", 0.01)),
        ("tp=pointwise:0.01,floor=1e-6", "tp", Bound("pointwise", 0.01, 1e-6)),
        ("pointwise:1%,floor=1e-6", "*", Bound("pointwise", 0.01, 1e-6)),
        ("z=lossless", "z", Bound("lossless")),
        ("lossless", "*", Bound("lossless")),
        ("u[0-9]*=.5", "u[0-9]*", Bound("abs", 0.5)),
        ("odd=name=1", "odd=name", Bound("abs", 1.0)),
        ("a:b=ratio:9", "a:b", Target(ratio=9.0)),
        ("ratio:300", "*", Target(ratio=300.0)),
        ("t2m=rmse:1e-3", "t2m", Target(rmse=1e-3)),
    ],
)
def test_an_error_spec_means_what_it_says(text: str, pattern: str, limit: Promise) -> None:
    assert parse_error(text) == ErrorSpec(pattern, limit)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not a number"),
        ("ten", "'ten' is not a number"),
        ("t2m=", "is not a number"),
        ("=0.1", "names no variable"),
        ("0", "number > 0, got 0.0"),
        ("-1", "number > 0, got -1.0"),
        ("nan", "finite number > 0, got nan"),
        ("1e400", "finite number > 0, got inf"),
        ("5%", "5% of what"),
        ("abs:5%", "5% of what"),
        ("rmse:5%", "5% of what"),
        ("relative:1%", "'relative' is no kind of error"),
        ("pointwise:100%", "fraction < 1"),
        ("0.1,floor=1", "floor belongs to mode 'pointwise'"),
        ("lossless,floor=1", "floor belongs to mode 'pointwise'"),
        ("pointwise:1%,floor=low", "'low' is not a number"),
        ("pointwise:1%,floor=0", "number > 0, got 0.0"),
        ("lossless:1", "'lossless' is no kind of error"),
        ("abs:lossless", "'lossless' is not a number"),
        ("ratio:1", "ratio must be a finite number > 1"),
        ("ratio:inf", "ratio must be a finite number > 1"),
        ("rmse:0", "rmse must be a finite number > 0"),
        ("rmse:0.5,floor=1", "rmse takes no floor"),
    ],
)
def test_a_bad_error_spec_is_refused_with_value_variable_reason_and_grammar(text: str, reason: str) -> None:
    for name, variables in (("", "every variable"), ("t2m=", "variable 't2m'")):
        if "=" in text.partition(",")[0]:
            name, variables = "", ""
        with pytest.raises(ArgumentError) as caught:
            parse_error(f"{name}{text}")
        message = str(caught.value)
        for part in (repr(f"{name}{text}"), variables, reason, FORMS):
            assert part in message


BOUNDS = st.builds(Bound, st.sampled_from(["abs", "range", "pointwise"]), st.floats(1e-300, 0.999))
FLOORED = st.builds(Bound, st.just("pointwise"), st.floats(1e-300, 0.999), st.floats(1e-300, 1e300))
TARGETS = st.builds(Target, ratio=st.floats(1.001, 1e9)) | st.builds(Target, rmse=st.floats(1e-300, 1e300))


@given(BOUNDS | FLOORED | TARGETS | st.just(Bound("lossless")))
def test_the_text_of_a_limit_reads_back_as_the_same_limit(limit: Promise) -> None:
    assert parse_error(format_bound(limit)) == ErrorSpec("*", limit)
    assert parse_error(f"x={format_bound(limit)}") == ErrorSpec("x", limit)


def test_the_last_match_wins_bound_or_target() -> None:
    specs = [parse_error(text) for text in ("ratio:300", "t*=0.2", "t2m=0.1", "u10=rmse:1")]
    found = {name: last_match(specs, name) for name in ("t2m", "tp", "u10", "q")}
    assert found == {
        "t2m": Bound("abs", 0.1),
        "tp": Bound("abs", 0.2),
        "u10": Target(rmse=1.0),
        "q": Target(ratio=300.0),
    }
    assert last_match(specs[1:], "q") is None


def test_a_spec_that_names_nothing_is_refused_with_what_exists() -> None:
    with pytest.raises(ArgumentError, match=r"'T2M': no such variable; an error can be set for: t2m, tp"):
        check_specs([parse_error("T2M=ratio:9")], ["t2m", "tp"], ["lat"])
    with pytest.raises(ArgumentError, match=r"'la\*': lat: coordinates and non-float variables are always exact"):
        check_specs([parse_error("la*=1")], ["t2m"], ["lat"])
    check_specs([parse_error("1")], [], ["lat"])


# --- presets: names and units to bounds -------------------------------------------------------------------------------


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
