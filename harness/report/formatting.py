"""How numbers, verdicts and reasons are written, whatever the format."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.judge.chain import broken_input
from harness.judge.orders import CLEAR, HOLDS
from harness.judge.roofline import Roofline
from harness.judge.table import FilledCell
from harness.judge.verdict import HEAD_NAMES, Diff, HeadVariant, JudgedCell, Ratio, Shape, Verdict, is_within
from harness.specs import Cell, Column, Footnote, Row
from harness.store.result import Measurement

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
class CellText:
    """The texts of a cell; each is empty where it has none.

    `measured` has its uncertainty, half of the 95 % interval, in the same decimals.  `difference` is in the unit of the
    cell, in percent where the tolerance is, or how much faster or slower another machine is.  `marks` are those of the
    published value's footnotes, `batch` is the batch size of a throughput.
    """

    measured: str = ""
    published: str = ""
    marks: tuple[str, ...] = ()
    difference: str = ""
    batch: str = ""


def cell_text(judged: JudgedCell) -> CellText:
    """Return the texts of a cell."""
    filled, cell, measurement = judged.filled, judged.filled.cell, judged.filled.measurement
    # The heading has the column's unit; a row of another one has it in its cells.
    unit = cell.unit if cell.unit != cell.column.unit else ""
    published, marks = ("", ()) if filled.at_small_scale else _published(cell, unit, idle=filled.planned.idle)
    if filled.planned.idle:
        return CellText(published=published, marks=marks)
    measured = batch = ""
    if measurement is not None:
        measured = _with_unit(_measured(measurement, cell), unit)
        if cell.metric == "throughput" and filled.result:
            batch = str(filled.result.facts.get("batch", "?"))
    return CellText(measured=measured, published=published, marks=marks, difference=_difference(judged), batch=batch)


def _measured(measurement: Measurement, cell: Cell) -> str:
    if isinstance(measurement.value, str):
        return measurement.value
    if measurement.low is None or measurement.high is None:
        return number(measurement.value, cell.digits)
    least = 1 if cell.unit.startswith("%") else 0
    return with_uncertainty(measurement.value, (measurement.high - measurement.low) / 2, cell.digits, least=least)


# Digits of a value that anybody reads, however small its uncertainty.
MOST_DIGITS = 6


def with_uncertainty(value: float, half: float, digits: int | None = None, *, least: int = 0) -> str:
    """Return a value and half of its interval with the same decimals: those of the first digit of the latter.

    There are at least `least` decimals, and no more than `digits`.  An uncertainty that rounds to nothing is left out.
    """
    if not (math.isfinite(value) and math.isfinite(half) and half > 0):
        return number(value, digits)
    first = -math.floor(math.log10(half))
    first = -math.floor(math.log10(round(half, first)))  # 0.096 is 0.1, with one decimal
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    decimals = max(least, min(max(0, first), MOST_DIGITS - 1 - magnitude if digits is None else digits), 0)
    uncertainty = number(half, decimals)
    return f"{number(value, decimals)} ± {uncertainty}" if float(uncertainty) else number(value, digits)


def _published(cell: Cell, unit: str, *, idle: bool) -> tuple[str, tuple[str, ...]]:
    """Return the published value and its marks.

    A blank of the paper stays blank; a statement that nothing measures is that of its own source, which it names.
    """
    published, source = cell.published, ""
    if published is None and idle and cell.references:
        published, source = cell.references[0].published, f" ({cell.references[0].source.name})"
    if published is None:
        return "", ()
    return f"{_with_unit(str(published), unit)}{source}", published.marks


def _with_unit(value: str, unit: str) -> str:
    """Add a unit to a number, or to a text with one: "yes" has none."""
    return f"{value} {unit}" if unit and any(map(str.isdigit, value)) else value


def _difference(judged: JudgedCell) -> str:
    cell, measured = judged.filled.cell, judged.filled.number
    if judged.delta is None or measured is None:
        return ""
    published = cell.references[0].published
    if judged.verdict is Verdict.NOT_COMPARABLE:
        # Other images or weights: a difference would look like a judgement.
        better = cell.better or ("higher" if "/s" in cell.unit else None)
        return pace(measured / published.value, better) if cell.machine and published.value else ""
    if cell.relative and published.value:
        return f"{signed(100 * judged.delta / published.value, 1)} %"
    return signed(judged.delta, published.decimals if cell.digits is None else cell.digits)


# Up to this factor a share tells more than the factor.
_TWICE = 2.0


def pace(ratio: float, better: str | None) -> str:
    """Return how much faster or slower a machine is than another, by the ratio of their values.

    `better` is `higher` or `lower`; of what is no speed (None) it is how much more or less.
    """
    if not (math.isfinite(ratio) and ratio > 0):
        return ""
    ahead, behind = ("faster", "slower") if better else ("more", "less")
    word = (behind if ratio > 1 else ahead) if better == "lower" else (ahead if ratio > 1 else behind)
    if 1 / _TWICE < ratio < _TWICE:
        share = number(100 * abs(ratio - 1), None, significant=2)
        return f"{share} % {word}" if float(share) else "as fast" if better else "the same"
    return f"{number(max(ratio, 1 / ratio), None, significant=2)}× {word}"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; what rounds to nothing has none."""
    text = f"{value:+z.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def number(value: float, digits: int | None, *, significant: int = 4) -> str:
    """Return a number with so many decimals, or with so many significant digits and no exponent."""
    if digits is not None:
        return f"{value:z.{digits}f}"  # z: what rounds to nothing has no sign
    if value == 0 or not math.isfinite(value) or isinstance(value, int):
        return f"{value:g}" if abs(value) < 10**6 else f"{value:.0f}"
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def probability(p: float | None) -> str:
    """Return a p value with two significant digits; empty if there is none."""
    if p is None:
        return ""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def title(diff: Diff) -> str:
    """Return the heading: what the edition calls the table, and what it shows."""
    name = diff.spec.numbers.get(diff.spec.edition, diff.spec.name)
    edition = " (ICML)" if diff.spec.edition == "icml" and "icml" in diff.spec.numbers else ""
    return f"{name}{edition}  {diff.spec.title}"


def heading(label: str, unit: str) -> str:
    """Return a column heading with its unit, each word once."""
    rest = remaining_unit(label, unit)
    return f"{label}, {rest}" if rest else label


def remaining_unit(label: str, unit: str) -> str:
    """Return what a label leaves out of its unit: `%` of `% top-1` for `ImNet top-1`."""
    if unit in label:
        return ""
    return " ".join(word for word in unit.split() if word not in label.split())


def row_groups(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield rows under the headings of the paper; empty where there is none, or where it only repeats its row."""
    for group, members in groupby(rows, key=lambda row: row.group):
        grouped = list(members)
        yield group if group and group != grouped[0].label else "", grouped


def legend(verdicts: Iterable[Verdict]) -> str:
    """Explain the signs of verdicts."""
    return ", ".join(f"{SIGNS[verdict]} {verdict}" for verdict in verdicts)


def reasons(diff: Diff, *, merged: bool = False) -> list[tuple[Verdict, str, str]]:
    """Group the cells that are not plain matches by verdict and reason, with a text that names the cells.

    `merged` puts reasons together that differ only in details.
    """
    groups: dict[tuple[Verdict, str], list[JudgedCell]] = {}
    for judged in diff.judged_cells.values():
        if not judged.filled.planned.idle and judged.verdict is not Verdict.MATCH:
            reason = without_details(judged.reason) if merged else judged.reason
            groups.setdefault((judged.verdict, reason), []).append(judged)
    order = list(Verdict)
    return [
        (
            verdict,
            cells[0].reason if len({c.reason for c in cells}) == 1 else f"{reason} (-v shows more)",
            _names(cells),
        )
        for (verdict, reason), cells in sorted(groups.items(), key=lambda group: order.index(group[0][0]))
    ]


_OPTION = re.compile(r"--\w+ .*?: ")
_NO_WEIGHTS = re.compile(r"no weights of \S+ there \(looked for .*")


def without_details(reason: str) -> str:
    """Leave out details: between a colon and a semicolon, an amount (≈ …), which weights a folder lacks.

    The colon behind an option and its value is none of those: what follows says what is wrong with it.
    """
    match = _OPTION.match(reason)
    option = match[0] if match else ""
    rest = _NO_WEIGHTS.sub("no weights of these models there", reason.removeprefix(option))
    short = re.sub(r": [^;]*(?=;)", "", rest).replace("; nearest public ones", "")
    return option + re.sub(r" \(≈ [^)]*\)", "", short)


def _names(cells: Sequence[JudgedCell]) -> str:
    columns = dict.fromkeys(judged.filled.cell.column.label for judged in cells)
    rows = dict.fromkeys(judged.filled.cell.row.label for judged in cells)
    return f"{', '.join(columns)} of {', '.join(rows) if len(rows) <= 3 else f'{len(rows)} rows'}"


def warnings(diff: Diff) -> list[str]:
    """Return the warnings of all measurements, each with its row."""
    return [f"{row}: {warning}" for row, warning in _warnings(diff)]


def merged_warnings(diff: Diff, *, hint: str = "") -> list[str]:
    """Return one of the warnings that differ only in row and number, with the number of the others."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for row, warning in _warnings(diff):
        groups.setdefault(re.sub(r"[\d.]+", "#", warning), []).append((row, warning))
    return [
        f"{row}: {warning}" + (f" (and {len(others)} more like it{hint})" if others else "")
        for (row, warning), *others in groups.values()
    ]


def _warnings(diff: Diff) -> list[tuple[str, str]]:
    rows: dict[tuple[str, str], str] = {}
    for judged in diff.judged_cells.values():
        filled = judged.filled
        behind = (filled, *filled.operands) if filled.measurement else ()
        for result in (one.result for one in behind if one.result):
            for warning in result.warnings:
                rows.setdefault((result.id, warning), filled.cell.row.label)
    return [(row, warning) for (_, warning), row in rows.items()]


def shape_sentence(shape: Shape) -> str:
    """Return how well the order of the rows agrees."""
    tau, rho = shape.kendall, shape.spearman
    noisy = f" ({shape.noisy} measured while something else used the machine)" if shape.noisy else ""
    holds = sum(order.holds for order in shape.orders)
    machines = f"{holds} of the {len(shape.orders)} machines of which timm published throughputs"
    others = f"; the order here also holds on {machines}" if shape.orders else ""
    return (
        f"order of {shape.rows} models{noisy} against the published one: "
        f"Kendall's τ {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}], "
        f"Spearman's ρ {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]{others}"
    )


def orders_sentence(shape: Shape) -> str:
    """Return how well the order agrees with that on each other published machine; empty where none has the models."""
    if not shape.orders:
        return ""
    shares = ", ".join(f"{order.machine} {100 * order.agreeing / order.pairs:.0f} %" for order in shape.orders)
    return (
        f"pairs of models in the same order as here, of those that differ by more than {100 * CLEAR:.0f} % on both: "
        f"{shares}; an order holds where {100 * HOLDS:.0f} % are"
    )


def ratios_by_reference(shape: Shape) -> list[tuple[Row, list[Ratio]]]:
    """Group the ratios by the row that they are relative to."""
    groups: dict[str, list[Ratio]] = {}
    for ratio in shape.ratios:
        groups.setdefault(ratio.reference.key, []).append(ratio)
    return [(ratios[0].reference, ratios) for ratios in groups.values()]


def head_table(judged: JudgedCell, variants: Sequence[HeadVariant]) -> tuple[str, list[tuple[str, ...]]]:
    """Return what each crop (a line) and head (a column) gives for a cell: a title, then heading and lines."""
    filled, cell = judged.filled, judged.filled.cell
    references = " and ".join(f"{r.source.cite} {r.published}" for r in cell.references)
    title = f"{cell.column.label} of {cell.row.label}; published: {references or 'nothing'}"
    comparable = judged.verdict is not Verdict.NOT_COMPARABLE
    if not comparable:
        title += f" ({judged.reason})"
    values = {(variant.crop, variant.head): variant.value for variant in variants}
    own_crop = filled.result.job["crop"] if filled.result else None

    def value_text(crop: float, head: str) -> str:
        value = values.get((crop, head))
        if value is None:
            return ""
        within = comparable and any(is_within(filled, reference, value) for reference in cell.references)
        mark = "*" if crop == own_crop and value == filled.number else " "
        return f"{value:.2f}{mark}{SIGNS[Verdict.MATCH] if within else ' '}"

    heads = list(dict.fromkeys(variant.head for variant in variants))
    lines = [("", *(HEAD_NAMES.get(head, cell.unit or "value") for head in heads))]
    crops = sorted({variant.crop for variant in variants})
    lines += [(f"crop {crop:g}", *(value_text(crop, head) for head in heads)) for crop in crops]
    return title, lines


HEAD_LEGEND = f"{SIGNS[Verdict.MATCH]} within the tolerance of a published value; * as the table has it"


def measured_point(across: FilledCell, up: FilledCell) -> tuple[float, float, bool] | None:
    """Return x and y of a measured point, and whether y is the published value because ours was not measured."""
    y = None if broken_input(up) else up.number
    height = up.published_number if y is None else y
    return None if across.number is None or height is None else (across.number, height, y is None)


def borrowed_remark(name: str, borrowed: Sequence[bool]) -> str:
    """Return a remark on points of ours whose value is the published one; empty if there are none."""
    if not any(borrowed):
        return ""
    points = "all our points" if all(borrowed) else f"{sum(borrowed)} of our {len(borrowed)} points"
    return f"The {name} of {points} is the published one: it was not measured."


def footnotes(diff: Diff, *, measured_only: bool = False) -> list[Footnote]:
    """Return the footnotes of the table in order of appearance; or those of measured cells only."""
    marks = dict.fromkeys(
        mark
        for judged in diff.judged_cells.values()
        if judged.filled.measurement or not measured_only
        for reference in judged.filled.cell.references
        for mark in reference.published.marks
    )
    return [diff.spec.footnotes[mark] for mark in marks]


def roofline_table(column: Column, rooflines: Sequence[Roofline]) -> list[tuple[str, ...]]:
    """Return how close each model comes to the peak of its machine: a heading, then a line a model."""

    def share(value: float | None) -> str:
        return "?" if value is None else f"{100 * value:.0f} %"

    lines: list[tuple[str, ...]] = [
        ("", "GFLOP/s", "of peak", "FLOP/byte", "bound by", "published TFLOP/s", f"of {column.machine} peak")
    ]
    for roofline in rooflines:
        published = roofline.published
        lines.append(
            (
                roofline.row.label,
                number(roofline.measured.flops / 1e9, None, significant=3),
                share(roofline.measured.share),
                number(roofline.intensity, None, significant=3),
                roofline.bound or "?",
                number(published.flops / 1e12, None, significant=3) if published else "",
                share(published.share) if published and published.share is not None else "",
            )
        )
    return lines
