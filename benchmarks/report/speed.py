"""Tables of speed, memory and waiting times, from their JSON."""

from typing import Any

from benchmarks.report.markdown import markdown

Result = dict[str, Any]


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
