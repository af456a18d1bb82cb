"""GRIB as people have it, with its right values."""

from pathlib import Path

import numpy as np

from isopress.format.source.dataset import open_source
from tests.format.sources import Case, grib_field, save_grib


def mixed_levels(tmp: Path) -> Case:
    messages = {
        "t2m": grib_field(280, shortName="2t"),
        "u10": grib_field(5, shortName="10u"),
        "v10": grib_field(3, shortName="10v"),
        "t": grib_field(250, shortName="t", typeOfLevel="isobaricInhPa", level=500),
        "sp": grib_field(1013, shortName="sp"),
    }
    values = {name: x for name, (x, _) in messages.items()}
    return Case(str(save_grib(tmp / "a.grib2", *messages.values())), values, lossy=tuple(values), read={"messages": 5})


def the_same_name_on_other_levels(tmp: Path) -> Case:
    levels = [
        grib_field(base, shortName="t", typeOfLevel="isobaricInhPa", level=p) for base, p in ((250, 500), (270, 850))
    ]
    ground = grib_field(280, shortName="t", typeOfLevel="surface")
    values = {
        "t": np.stack([levels[1][0], levels[0][0]]),
        "t_surface": ground[0],
        "isobaricInhPa": np.array([850.0, 500.0]),
    }
    return Case(
        str(save_grib(tmp / "a.grib2", ground, *levels)), values, lossy=("t", "t_surface"), read={"messages": 3}
    )


def other_sets_of_levels(tmp: Path) -> Case:
    t = [grib_field(250 + p / 100, shortName="t", typeOfLevel="isobaricInhPa", level=p) for p in (500, 850)]
    q = [grib_field(50 + p / 100, shortName="r", typeOfLevel="isobaricInhPa", level=p) for p in (300, 500, 850)]
    values = {
        "t": np.stack([t[1][0], t[0][0]]),
        "r": np.stack([q[2][0], q[1][0], q[0][0]]),
        "isobaricInhPa": np.array([850.0, 500.0]),
        "isobaricInhPa_r": np.array([850.0, 500.0, 300.0]),
    }
    return Case(str(save_grib(tmp / "a.grib2", *t, *q)), values, lossy=("t", "r"), read={"messages": 5})


def other_sets_of_steps(tmp: Path) -> Case:
    t = [grib_field(280 + step, shortName="2t", step=step) for step in (0, 6, 12)]
    rain = [
        grib_field(20 + step, shortName="tp", stepType="accum", startStep=0, endStep=step, typeOfLevel="surface")
        for step in (6, 12)
    ]
    values = {
        "t2m": np.stack([x for x, _ in t]),
        "tp": np.stack([x for x, _ in rain]),
        "step": np.array([0.0, 6.0, 12.0]),
        "step_tp": np.array([6.0, 12.0]),
    }
    return Case(str(save_grib(tmp / "a.grib2", *t, *rain)), values, lossy=("t2m", "tp"), read={"messages": 5})


def accumulations_that_end_together(tmp: Path) -> Case:
    rain = [
        grib_field(20 + start, shortName="tp", stepType="accum", startStep=start, endStep=6, typeOfLevel="surface")
        for start in (0, 3)
    ]
    values = {"tp": rain[0][0], "tp_startStep3": rain[1][0]}
    return Case(str(save_grib(tmp / "a.grib2", *rain)), values, lossy=tuple(values), read={"messages": 2})


def an_ensemble(tmp: Path) -> Case:
    keys = {"shortName": "2t", "productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 3}
    members = [grib_field(280 + n, **keys, perturbationNumber=n) for n in (0, 1, 2)]
    values = {"t2m": np.stack([x for x, _ in members]), "number": np.array([0, 1, 2])}
    return Case(str(save_grib(tmp / "a.grib2", *members)), values, lossy=("t2m",), read={"messages": 3})


def a_message_that_is_there_twice(tmp: Path) -> Case:
    message = grib_field(280, shortName="2t")
    return Case(
        str(save_grib(tmp / "a.grib2", message, message)),
        {"t2m": message[0]},
        ("1 messages are in the file twice, byte for byte",),
        ("t2m",),
        read={"messages": 2},
    )


def a_field_that_is_missing_in_a_cube(tmp: Path) -> Case:
    fields_of = {
        (p, step): grib_field(250 + step, shortName="t", typeOfLevel="isobaricInhPa", level=p, step=step)
        for p, step in ((500, 0), (850, 0), (850, 6))
    }
    none = np.full((19, 36), np.nan)
    values = {
        "t": np.stack(
            [
                np.stack([fields_of[850, 0][0], fields_of[500, 0][0]]),
                np.stack([fields_of[850, 6][0], none]),
            ]
        )
    }
    return Case(str(save_grib(tmp / "a.grib2", *fields_of.values())), values, ("1 of its 4 fields are not in",), ("t",))


def times_and_steps_on_a_diagonal(tmp: Path) -> Case:
    messages = [grib_field(280 + n, shortName="2t", dataDate=20200101 + n, dataTime=0, step=6 * n) for n in range(4)]
    values = {"t2m": np.stack([x for x, _ in messages]), "step": 6.0 * np.arange(4)}
    return Case(str(save_grib(tmp / "a.grib2", *messages)), values, lossy=("t2m",), read={"messages": 4})


def spectral_coefficients(tmp: Path) -> Case:
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("sh_ml_grib2")
    size = eccodes.codes_get_size(handle, "values")
    eccodes.codes_release(handle)
    x = np.random.default_rng(0).normal(0, 1, size) / (1 + np.arange(size))
    x[0] = 280
    path = save_grib(tmp / "a.grib2", (x, {"shortName": "t", "bitsPerValue": 24}), sample="sh_ml_grib2")
    with open_source(str(path)) as source:
        stored = source.read("t", (slice(None),))
        assert source.reasons["t"] == ("spectral coefficients", True)
    return Case(str(path), {"t": stored}, read={"messages": 1})


def a_reduced_gaussian_grid(tmp: Path) -> Case:
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
    size, latitudes = eccodes.codes_get_size(handle, "values"), eccodes.codes_get_array(handle, "latitudes")
    eccodes.codes_set_values(handle, 280 + 10 * np.cos(np.radians(latitudes)))
    with open(tmp / "a.grib2", "wb") as file:
        eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)
    assert size == latitudes.size
    return Case(
        str(tmp / "a.grib2"), {"t": 280 + 10 * np.cos(np.radians(latitudes)), "latitude": latitudes}, lossy=("t",)
    )


CASES = (
    mixed_levels,
    the_same_name_on_other_levels,
    other_sets_of_levels,
    other_sets_of_steps,
    an_ensemble,
    accumulations_that_end_together,
    a_message_that_is_there_twice,
    a_field_that_is_missing_in_a_cube,
    times_and_steps_on_a_diagonal,
    spectral_coefficients,
    a_reduced_gaussian_grid,
)
