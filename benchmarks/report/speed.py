"""Tables of speed, memory and waiting times, from their JSON."""

from typing import Any

from benchmarks.report.markdown import markdown

Result = dict[str, Any]


OVERVIEW = "native/u850"  # the field that stands for all in the README
GUARANTEES = {
    "isopress": "every value within the bound, checked by the encoder; NaN, infinities, -0.0 bit by bit",
    "SZ3 (native)": "bound",
    "SPERR": "bound, missed by up to 0.1 %; refuses NaN and infinities",
    "ZFP": "bound; refuses NaN and infinities",
    "om-files": "bound",
    "rounding + pcodec": "bound, missed by a rounding of float32",
}


def overview(result: Result) -> str:
    """Return size, speed and guarantee of the main codecs on one field, and of a target of 200 times."""
    runs = {
        run["codec"]: run for run in result["runs"] if run["variable"] == OVERVIEW and run["relative_bound"] == 1e-3
    }
    rows = [
        [name, f"{run['ratio']:.1f}x", f"{run['encode']['mb_per_s']:.0f}", f"{run['decode']['mb_per_s']:.0f}", promise]
        for name, promise in GUARANTEES.items()
        if (run := runs.get(name))
    ]
    for run in (run for run in result.get("latent", []) if run["variable"] == OVERVIEW):
        speeds = [f"{run[way]['mb_per_s']:.0f}" for way in ("encode", "decode")]
        promise = f"ratio or RMSE of a chunk within 3 %, no bound on a value ({run['threads']} threads)"
        rows.append(["isopress, ratio:200", f"{run['ratio']:.0f}x", *speeds, promise])
    return markdown(["codec", "smaller", "encode MB/s", "decode MB/s", "guarantee"], rows)


def speed(result: Result) -> str:
    """Return MB/s and peak memory per codec and variable."""
    rows = [
        [
            run["codec"],
            run["variable"],
            f"{run['relative_bound']:g}",
            f"{run['encode']['mb_per_s']:.1f}",
            f"{run['decode']['mb_per_s']:.1f}",
            f"{run['encode']['peak_over_field']:.1f}x",
            f"{run['decode']['peak_over_field']:.1f}x",
            f"{run['ratio']:.1f}",
        ]
        for run in result["runs"]
    ]
    header = [
        "codec",
        "variable",
        "bound / range",
        "encode MB/s",
        "decode MB/s",
        "encode memory",
        "decode memory",
    ]
    return markdown([*header, "ratio"], rows)


def latent_speed(result: Result) -> str:
    """Return MB/s and peak memory of mode "latent" per variable."""
    rows = [
        [
            run["variable"],
            f"{run['ratio']:.0f}",
            str(run["threads"]),
            f"{run['encode']['mb_per_s']:.1f}",
            f"{run['encode_at_step']['mb_per_s']:.1f}",
            f"{run['decode']['mb_per_s']:.1f}",
            f"{run['two_at_once']['encode']:.1f}",
            f"{run['two_at_once']['decode']:.1f}",
            f"{run['crowded']:.1f}",
            f"{run['store']['mb_per_s']:.1f}",
            f"{run['encode']['peak_over_field']:.1f}x",
            f"{run['decode']['peak_over_field']:.1f}x",
            "met" if run["kept"] else "**missed**",
        ]
        for run in result.get("latent", [])
    ]
    header = ["variable", "ratio", "threads", "encode MB/s", "at a given step", "decode MB/s"]
    header += ["two fields at once: encode", "decode", "decode, two threads each", "xarray reads a store"]
    return markdown([*header, "encode memory", "decode memory", "encode >= 5, decode >= 10 MB/s"], rows)
