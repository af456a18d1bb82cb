"""A comparison as one HTML page: every picture, style and script is in it, nothing is fetched."""

import base64
from collections.abc import Sequence
from html import escape

import isopress
from isopress.format.report.compare import figures
from isopress.format.report.compare.figures import Picture
from isopress.format.report.compare.records import Check, CompareReport, Comparison
from isopress.format.report.compare.text import check_text, figures_row, sampled_text, summary
from isopress.format.report.words import ratio_text, size, with_units

_STYLE = """
:root{color-scheme:light;--ink:#1b2733;--soft:#5b6b7b;--line:#d9e0e7;--good:#1a7f4b;--bad:#b3261e;--back:#f5f7f9}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif;color:var(--ink);background:var(--back)}
main{max-width:1320px;margin:0 auto;padding:16px}
header h1{font-size:1.5em;margin:.2em 0}
h2{font-size:1.2em;margin:0 0 .2em}
p{margin:.3em 0}
.soft{color:var(--soft);font-size:.92em}
.card{background:#fff;border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:14px 0}
.facts{display:flex;flex-wrap:wrap;gap:10px;margin:12px 0}
.fact{background:#fff;border:1px solid var(--line);border-radius:10px;padding:8px 14px;min-width:120px}
.fact b{display:block;font-size:1.25em}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9em;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 7px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;font-size:.85em}
.badge{display:inline-block;border-radius:6px;padding:1px 8px;font-size:.88em;font-weight:600;color:#fff}
.good{background:var(--good)}.bad{background:var(--bad)}.mixed{background:#9a6b00}
td.pass{color:var(--good)}td.fail{color:var(--bad);font-weight:600}
.checks{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:8px;margin:10px 0}
.check{border:1px solid var(--line);border-left:4px solid var(--good);border-radius:6px;padding:5px 10px}
.check.fail{border-left-color:var(--bad)}
.check b{display:block}
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:10px}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:10px;margin-top:10px}
figure{margin:0}figcaption{font-size:.85em;color:var(--soft)}
img{width:100%;height:auto;display:block}
.slider{display:flex;gap:12px;align-items:center;margin:8px 0;flex-wrap:wrap}
.slider input{flex:1 1 200px;max-width:480px}
a{color:inherit}
@media(max-width:640px){main{padding:8px}.card{padding:10px}.maps,.curves{grid-template-columns:1fr}.fact{flex:1 1 40%}}
@media print{.card{break-inside:avoid}body{background:#fff}}
"""

_SCRIPT = """
for (const slider of document.querySelectorAll('.slider input')) {
  const show = () => {
    const card = slider.closest('.card');
    for (const frame of card.querySelectorAll('[data-frame]'))
      frame.hidden = frame.dataset.frame !== slider.value;
    slider.nextElementSibling.textContent = slider.dataset.labels.split('|')[slider.value];
  };
  slider.addEventListener('input', show);
  show();
}
"""

_THRESHOLDS = (
    "Each figure of merit stands beside the threshold that the field uses: Pearson correlation above 0.99999, DSSIM "
    "above 0.9995 (Baker et al., 2023; their tool ldcpy asks for 0.995), power within 5 % at all wavelengths down to 4 "
    "grid cells, p of the Kolmogorov-Smirnov test of both distributions above 0.05. These are hard tests of values "
    "that are rounded: a bound can hold for every value while one of them fails. RMSE and bias have latitude's weights."
)


def html(report: CompareReport) -> str:
    """Return the page."""
    title = f"{report.store}: what compression changed"
    cards = "".join(_card(number, variable) for number, variable in enumerate(report.variables))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<header><h1>What compression changed</h1>{_lines(summary(report))}</header>"
        f'{_facts(report)}<section class="card"><h2>Overview</h2>{_table(report)}'
        f'<p class="soft">{escape(_THRESHOLDS)}</p></section>{cards}'
        f'<footer class="soft"><p>isopress {isopress.__version__}. Coastlines: Natural Earth.</p></footer>'
        f"</main><script>{_SCRIPT}</script></body></html>\n"
    )


def _facts(report: CompareReport) -> str:
    bounds = [variable for variable in report.variables if not variable.derived]
    kept = sum(variable.kept for variable in bounds)
    facts = (
        (ratio_text(report.ratio), "smaller"),
        (size(report.stored_nbytes), f"of {size(report.original_nbytes)}"),
        (f"{kept} of {len(bounds)}", "variables keep their bound"),
        ("sampled" if report.sampled else "complete", "fields with a limit"),
    )
    return (
        f'<div class="facts">{"".join(f"<div class=fact><b>{escape(a)}</b>{escape(b)}</div>" for a, b in facts)}</div>'
    )


def _table(report: CompareReport) -> str:
    names = (
        "variable",
        "",
        "figures",
        "bound",
        "ratio",
        "max error",
        "RMSE",
        "PSNR",
        "Pearson",
        "DSSIM",
        "power",
        "KS p",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(_row(number, variable, report) for number, variable in enumerate(report.variables))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(number: int, variable: Comparison, report: CompareReport) -> str:
    name, limit, worst, rmse, _, psnr, *merits, _ = figures_row(variable)
    link = f'<a href="#v{number}">{escape(name)}</a>'
    ratio = ratio_text(report.ratios[variable.name]) if variable.name in report.ratios else ""
    plain = "".join(f"<td>{escape(text)}</td>" for text in (ratio, worst, rmse, psnr))
    checked = "".join(
        f'<td class="{"pass" if check.passed else "fail"}">{escape(text)}</td>'
        for check, text in zip(variable.checks, merits, strict=True)
    )
    kept = "" if variable.derived else _badge("kept" if variable.kept else "BROKEN", variable.kept)
    passed = [bool(check.passed) for check in variable.checks]
    merit = _badge(f"{sum(passed)} of {len(passed)}", all(passed) or None)
    return f"<tr><td>{link}</td><td>{kept}</td><td>{merit}</td><td>{escape(limit)}</td>{plain}{checked}</tr>"


def _badge(text: str, good: bool | None) -> str:
    """Return a coloured word: good, bad, or neither of them (None)."""
    kind = "mixed" if good is None else "good" if good else "bad"
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _verdict(variable: Comparison) -> str:
    if not variable.derived and not variable.kept:
        return _badge(variable.verdict, False)
    return _badge(variable.verdict, all(check.passed for check in variable.checks) or None)


def _card(number: int, variable: Comparison) -> str:
    merit = variable.merit
    about = ", ".join(filter(None, (variable.long_name, variable.units)))
    worst = with_units(merit.max_error, variable.units)
    limit = "computed from decoded variables" if variable.derived else f"promised: {variable.limit_text}"
    text = f"{limit}; largest error {worst}, RMSE {with_units(merit.rmse, variable.units)}, bias {merit.bias:.2g}"
    sampled = sampled_text(variable)
    note = f'<p class="soft">Compared: {escape(sampled)}.</p>' if sampled else ""
    checks = "".join(map(_check, variable.checks))
    return (
        f'<section class="card" id="v{number}"><h2>{escape(variable.name)} {_verdict(variable)}</h2>'
        f'<p class="soft">{escape(about)}</p><p>{escape(text)}</p>{note}<div class="checks">{checks}</div>'
        f'{_maps(variable)}<div class="curves">{"".join(map(_figure, figures.curves(variable)))}</div></section>'
    )


def _check(check: Check) -> str:
    word = "pass" if check.passed else "fail"
    value = escape(check_text(check.name, check.value))
    return f'<div class="check {word}"><b>{escape(check.name)} {value}</b>{escape(check.threshold)}: {word}</div>'


def _maps(variable: Comparison) -> str:
    drawn = figures.maps(variable)
    if not drawn:
        return ""
    labels = [label or "the field" for label, _ in drawn]
    groups = "".join(_frame(place, pictures) for place, (_, pictures) in enumerate(drawn))
    slider = (
        f'<label class="slider">Field <input type="range" min="0" max="{len(drawn) - 1}" value="0" '
        f'data-labels="{escape("|".join(labels))}"><output>{escape(labels[0])}</output></label>'
    )
    return (slider if len(drawn) > 1 else f'<p class="soft">{escape(labels[0])}</p>') + groups


def _frame(place: int, pictures: Sequence[Picture]) -> str:
    hidden = " hidden" if place else ""
    return f'<div data-frame="{place}"{hidden}><div class="maps">{"".join(map(_figure, pictures))}</div></div>'


def _figure(picture: Picture) -> str:
    _, title, png = picture
    source = base64.b64encode(png).decode()
    text = escape(title)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{source}"><figcaption>{text}</figcaption></figure>'


def _lines(lines: Sequence[str]) -> str:
    return "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)
