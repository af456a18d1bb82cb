"""Error specs and presets: text and units to bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound
from isopress.format.error_spec import check_specs, format_bound, last_match, parse_error
from isopress.format.presets import PRESETS, QUANTITIES, normalise_units, preset_bound


@pytest.mark.parametrize(
    ("text", "pattern", "bound"),
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
    ],
)
def test_an_error_spec_means_what_it_says(text: str, pattern: str, bound: Bound) -> None:
    spec = parse_error(text)
    assert (spec.pattern, spec.bound) == (pattern, bound)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a number"),
        ("ten", "not a number"),
        ("t2m=", "not a number"),
        ("=0.1", "names no variable"),
        ("0", "> 0"),
        ("-1", "> 0"),
        ("nan", "finite"),
        ("inf", "finite"),
        ("5%", "percentage of what"),
        ("abs:5%", "percentage of what"),
        ("relative:1%", "mode 'relative' is unknown; allowed are abs, range, pointwise, lossless"),
        ("pointwise:100%", "fraction < 1"),
        ("0.1,floor=1", "floor belongs to mode 'pointwise'"),
        ("lossless,floor=1", "floor belongs to mode 'pointwise'"),
        ("pointwise:1%,floor=low", "not a number"),
        ("pointwise:1%,floor=0", "> 0"),
        ("lossless:1", "takes no bound"),
    ],
)
def test_a_bad_error_spec_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        parse_error(text)


@given(
    st.sampled_from(["abs", "range", "pointwise"]),
    st.floats(1e-300, 0.999),
    st.none() | st.floats(1e-300, 1e300),
)
def test_the_text_of_a_bound_reads_back_as_the_same_bound(mode: str, value: float, floor: float | None) -> None:
    bound = Bound(mode, value, floor if mode == "pointwise" else None)  # type: ignore[arg-type]
    assert parse_error(format_bound(bound)).bound == bound
    assert parse_error(f"x={format_bound(bound)}").bound == bound


def test_the_last_match_wins() -> None:
    specs = [parse_error(text) for text in ("0.5", "t*=0.2", "t2m=0.1", "u10=1")]
    found = [last_match(specs, name) for name in ("t2m", "tp", "u10", "q")]
    assert found == [Bound("abs", 0.1), Bound("abs", 0.2), Bound("abs", 1.0), Bound("abs", 0.5)]
    assert last_match(specs[1:], "q") is None


def test_a_spec_that_names_nothing_is_refused_with_what_exists() -> None:
    with pytest.raises(ArgumentError, match=r"'T2M': no such variable; a bound can be set for: t2m, tp"):
        check_specs([parse_error("T2M=1")], ["t2m", "tp"], ["lat"])
    with pytest.raises(ArgumentError, match=r"lat: coordinates and non-float variables are always exact"):
        check_specs([parse_error("la*=1")], ["t2m"], ["lat"])
    check_specs([parse_error("1")], [], ["lat"])


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
    assert preset_bound("science", "t2m", {"units": "degree_fahrenheit"}).mode == "range"
    assert preset_bound("science", "tcc", {"units": "oktas"}).mode == "range"


def test_every_preset_is_looser_than_the_one_before() -> None:
    for quantity in QUANTITIES:
        unit = next(iter(quantity.units))
        values = [quantity.bound(preset, unit).value or 0 for preset in PRESETS]
        assert values == sorted(set(values)), quantity.label


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ArgumentError, match="archive, science, preview"):
        preset_bound("best", "t", {})  # type: ignore[arg-type]
