"""Limits as text: what every form means, reads back as, and is refused for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.format.error_spec import FORMS, ErrorSpec, check_specs, format_bound, last_match, parse_error
from isopress.format.settings import Promise


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
