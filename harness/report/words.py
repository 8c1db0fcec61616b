"""How numbers, verdicts and reasons are written, whatever the format."""

import math
import re
from dataclasses import dataclass

from harness.diff import HEAD_NAMES, Diff, Finding, Ratio, Reading, Shape, Verdict, is_within
from harness.limits import Limits
from harness.spec import Footnote, Row

SIGNS = {
    Verdict.MATCH: "✓",
    Verdict.NOISE: "≈",
    Verdict.DEVIATES: "✗",
    Verdict.EXPLAINED: "✻",
    Verdict.NOT_COMPARABLE: "·",
    Verdict.MISSING: "–",
    Verdict.FAILED: "!",
}


@dataclass(frozen=True, kw_only=True)
class Written:
    """A cell in words.

    `measured` is empty where nothing was measured, `published` where nothing was printed; `difference` is a signed
    number, or a factor where the machines differ; `batch` is that of a speed.
    """

    measured: str
    sign: str
    published: str
    difference: str
    batch: str


def written(finding: Finding) -> Written:
    """Write one cell."""
    cell, measurement = finding.filled.cell, finding.filled.measurement
    marks = "".join(f"[{mark}]" for mark in (cell.printed.marks if cell.printed else ()))
    published = f"{cell.printed.text}{marks}" if cell.printed else ""
    if cell.printed and cell.printed.uncertainty:
        published = f"{cell.printed.text} ± {cell.printed.uncertainty}{marks}"
    if finding.filled.stands_in:
        published = ""
    if finding.filled.planned.idle:
        return Written(measured="", sign="", published=published, difference="", batch="")
    measured = difference = batch = ""
    if measurement is not None:
        measured = measurement.value if isinstance(measurement.value, str) else number(measurement.value, cell.digits)
        if measurement.low is not None and measurement.high is not None and not isinstance(measurement.value, str):
            half = (measurement.high - measurement.low) / 2
            tenths = 1 if cell.unit.startswith("%") and half >= 0.05 else None
            measured = f"{measured} ±{number(half, tenths, significant=1)}"
        if cell.kind == "throughput" and cell.metric == "throughput" and finding.filled.result:
            batch = f"@{finding.filled.result.facts.get('batch', '?')}"
        difference = _difference(finding)
    return Written(
        measured=measured,
        sign=SIGNS[finding.verdict],
        published=published,
        difference=difference,
        batch=batch,
    )


def _difference(finding: Finding) -> str:
    cell, measurement = finding.filled.cell, finding.filled.measurement
    if finding.delta is None or measurement is None or isinstance(measurement.value, str):
        return ""
    published = cell.references[0].printed.value
    if finding.verdict is Verdict.NOT_COMPARABLE and published:
        if not cell.column.machine:
            return ""  # other images or weights: a difference would look like a judgement
        return f"×{number(measurement.value / published, None, significant=3)}"
    digits = cell.digits if cell.digits is not None else cell.references[0].printed.decimals
    # A difference that rounds to nothing has no sign.
    text = f"{finding.delta:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def number(value: float, digits: int | None, *, significant: int = 4) -> str:
    """Write a number with so many decimals, or with so many significant digits and no exponent."""
    if digits is not None:
        return f"{value:z.{digits}f}"  # z: what rounds to nothing has no sign
    if value == 0 or not math.isfinite(value) or isinstance(value, int):
        return f"{value:g}" if abs(value) < 10**6 else f"{value:.0f}"
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def title(diff: Diff) -> str:
    """Write the heading: what the edition calls the table, and what it shows."""
    name = diff.spec.numbers.get(diff.spec.edition, diff.spec.name)
    edition = " (ICML)" if diff.spec.edition == "icml" and "icml" in diff.spec.numbers else ""
    return f"{name}{edition}  {diff.spec.title}"


def heading(label: str, unit: str) -> str:
    """Write a column heading with its unit, each word once."""
    rest = unit_beside(label, unit)
    return f"{label}, {rest}" if rest else label


def unit_beside(label: str, unit: str) -> str:
    """Give what a label does not say of its unit: `%` for `% top-1` beside `ImNet top-1`."""
    if unit in label:
        return ""
    return " ".join(word for word in unit.split() if word not in label.split())


def counts(diff: Diff) -> str:
    """Sum the verdicts up, most telling first."""
    parts = [f"{diff.counts[verdict]} {verdict}" for verdict in Verdict if diff.counts[verdict]]
    return ", ".join(parts) if parts else "nothing to measure"


def legend(diff: Diff) -> str:
    """Explain the signs that occur."""
    signs = ", ".join(f"{SIGNS[verdict]} {verdict}" for verdict in Verdict if diff.counts[verdict])
    speeds = any(f.filled.measurement and f.filled.cell.kind == "throughput" for f in diff.findings.values())
    return signs + (", @N batch of N, ×N measured over published" if speeds else "")


def reasons(diff: Diff) -> list[tuple[Verdict, str, str]]:
    """Group the cells that are not plain matches by reason: verdict, reason, and which cells they are."""
    grouped: dict[tuple[Verdict, str], list[Finding]] = {}
    for finding in diff.findings.values():
        if finding.filled.planned.idle or finding.verdict is Verdict.MATCH:
            continue
        grouped.setdefault((finding.verdict, finding.reason), []).append(finding)
    order = list(Verdict)
    found = [(verdict, reason, _cells(findings)) for (verdict, reason), findings in grouped.items()]
    return sorted(found, key=lambda entry: order.index(entry[0]))


def reasons_in_short(diff: Diff) -> list[tuple[Verdict, str, str]]:
    """Put reasons into one line that differ only in a detail."""
    alike: dict[tuple[Verdict, str], list[tuple[Verdict, str, str]]] = {}
    for entry in reasons(diff):
        alike.setdefault((entry[0], in_short(entry[1])), []).append(entry)
    found = []
    for (verdict, short), entries in alike.items():
        if len(entries) == 1:
            found += entries
            continue
        full = {reason for _, reason, _ in entries}
        findings = [f for f in diff.findings.values() if f.verdict is verdict and f.reason in full]
        found.append((verdict, f"{short} (-v shows more)", _cells(findings)))
    return found


_OPTION = re.compile(r"--\w+ .*?: ")
_NO_WEIGHTS = re.compile(r"no weights of \S+ there \(looked for .*")


def in_short(reason: str) -> str:
    """Leave out details: between a colon and a semicolon, an amount (≈ …), which weights a folder lacks.

    The colon behind an option and its value is none of those: what follows says what is wrong with it.
    """
    option = found[0] if (found := _OPTION.match(reason)) else ""
    rest = _NO_WEIGHTS.sub("no weights of these networks there", reason.removeprefix(option))
    short = re.sub(r": [^;]*(?=;)", "", rest).replace("; nearest public ones", "")
    return option + re.sub(r" \(≈ [^)]*\)", "", short)


def _cells(findings: list[Finding]) -> str:
    columns = dict.fromkeys(f.filled.cell.column.label for f in findings)
    rows = dict.fromkeys(f.filled.cell.row.label for f in findings)
    named = ", ".join(rows) if len(rows) <= 3 else f"{len(rows)} rows"
    return f"{', '.join(columns)} of {named}"


def doubts(diff: Diff) -> list[str]:
    """Collect what the measurements doubt about themselves, each with the row it is about."""
    return [f"{row}: {warning}" for row, warning in _warnings(diff)]


def doubts_in_short(diff: Diff, *, hint: str = "") -> list[str]:
    """Sum up doubts that differ only in row and number: how many, and the first as an example."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for row, warning in _warnings(diff):
        alike.setdefault(re.sub(r"[\d.]+", "#", warning), []).append((row, warning))
    return [
        f"{row}: {warning}" + (f" (and {len(others)} more like it{hint})" if others else "")
        for (row, warning), *others in alike.values()
    ]


def _warnings(diff: Diff) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for finding in diff.findings.values():
        result = finding.filled.result
        for warning in result.warnings if result and finding.filled.measurement else ():
            found.setdefault((result.id if result else "", warning), (finding.filled.cell.row.label, warning))
    return list(found.values())


def shape_sentence(shape: Shape) -> str:
    """Say how well the order of the rows agrees."""
    tau, rho = shape.kendall, shape.spearman
    return (
        f"order of {shape.rows} networks against the published one: "
        f"Kendall's τ {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}], "
        f"Spearman's ρ {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}] (95 % bootstrap interval)"
    )


def ratios_by_reference(shape: Shape) -> list[tuple[Row, list[Ratio]]]:
    """Group the ratios by the row that they are to."""
    grouped: dict[str, list[Ratio]] = {}
    for ratio in shape.ratios:
        grouped.setdefault(ratio.reference.key, []).append(ratio)
    return [(ratios[0].reference, ratios) for ratios in grouped.values()]


def readings_lines(finding: Finding, found: list[Reading]) -> tuple[str, list[tuple[str, ...]]]:
    """Write what each crop (a line) and head (a column) gives for a cell: a heading, then the lines."""
    filled, cell = finding.filled, finding.filled.cell
    references = " and ".join(f"{r.source.cite} {r.printed.text}" for r in cell.references)
    title = f"{cell.column.label} of {cell.row.label}; published: {references or 'nothing'}"
    if finding.verdict is Verdict.NOT_COMPARABLE:
        title += f" ({finding.reason})"
    heads = list(dict.fromkeys(one.head for one in found))
    values = {(one.crop, one.head): one.value for one in found}
    own_crop = filled.result.job["crop"] if filled.result else None
    own = filled.measurement.value if filled.measurement else None
    judged = finding.verdict is not Verdict.NOT_COMPARABLE

    def written_one(crop: float, head: str) -> str:
        value = values.get((crop, head))
        if value is None:
            return ""
        within = judged and any(is_within(filled, reference, value) for reference in cell.references)
        mark = "*" if crop == own_crop and value == own else " "
        return f"{value:.2f}{mark}{SIGNS[Verdict.MATCH] if within else ' '}"

    lines = [("", *(HEAD_NAMES.get(head, cell.unit or "value") for head in heads))]
    crops = sorted({one.crop for one in found})
    lines += [(f"crop {crop:g}", *(written_one(crop, head) for head in heads)) for crop in crops]
    return title, lines


READINGS_LEGEND = f"{SIGNS[Verdict.MATCH]} within the tolerance of a published value; * as the table has it"


def footnotes(diff: Diff, *, measured_only: bool = False) -> list[Footnote]:
    """Give the footnotes whose marks stand in the table, in order of appearance; or those of measured cells only."""
    marks = dict.fromkeys(
        mark
        for finding in diff.findings.values()
        if finding.filled.measurement or not measured_only
        for reference in finding.filled.cell.references
        for mark in reference.printed.marks
    )
    return [diff.spec.footnotes[mark] for mark in marks]


def limits_lines(limits: list[Limits]) -> list[tuple[str, ...]]:
    """Write how close each network comes to its machine's ceiling: a heading, then a line a network."""
    lines: list[tuple[str, ...]] = [
        ("", "GFLOP/s", "of ceiling", "FLOP/byte", "bound by", "published TFLOP/s", "of that machine")
    ]
    for one in limits:
        published = one.published
        lines.append(
            (
                one.row.label,
                number(one.measured.flops / 1e9, None, significant=3),
                f"{one.measured.share:.0%}" if one.measured.share is not None else "?",
                number(one.intensity, None, significant=3),
                one.bound or "?",
                number(published.flops / 1e12, None, significant=3) if published else "",
                f"{published.share:.0%}" if published and published.share is not None else "",
            )
        )
    return lines
