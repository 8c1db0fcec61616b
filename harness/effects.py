"""A table trained at a small scale -> what each row's change does there, beside what it does in print.

Accuracies of small networks on other images say nothing of the published ones; whether a change helps or harms, and
which change matters more, may.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.spec import Column, Row
from harness.stats import Correlation, kendall, rank_correlation, summarise
from harness.table import Filled, Table

# Fewer rows than these have no order worth a number.
LEAST_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a row's change does: its accuracy less the default row's, in points.

    `measured` is the mean over seeds, each compared with the default row of the same seed, `low` and `high` bound it
    with 95 % confidence (Student's t over seeds; None with one seed).  `published` is None where one of the two values
    was not printed; `marks` are those of its footnotes.
    """

    row: Row
    seeds: int
    measured: float
    low: float | None
    high: float | None
    published: float | None
    marks: tuple[str, ...] = ()

    @property
    def clear(self) -> bool:
        """Whether the interval leaves no doubt about the sign."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def same_sign(self) -> bool | None:
        """Whether the change helps or harms here as in print; None where the print says neither."""
        return None if not self.published else self.measured * self.published > 0


@dataclass(frozen=True, kw_only=True)
class Effects:
    """The effects in one column of a table.  `default` is the mean accuracy of the default row, in percent."""

    column: Column
    default_row: Row
    default: float
    on: str
    rows: tuple[Effect, ...]
    order: Correlation | None

    @property
    def agreeing(self) -> tuple[int, int]:
        """How many effects have the sign that is in print, of how many that have one."""
        told = [effect.same_sign for effect in self.rows if effect.same_sign is not None]
        return sum(told), len(told)

    @property
    def clearly_agreeing(self) -> tuple[int, int]:
        """Likewise, of those whose interval leaves no doubt."""
        told = [effect.same_sign for effect in self.rows if effect.clear and effect.same_sign is not None]
        return sum(told), len(told)


def effects_of(table: Table) -> tuple[Effects, ...]:
    """Find the effects in every column that was trained at a small scale."""
    default = table.spec.default
    if default is None or not any(filled.planned.small for filled in table.cells.values()):
        return ()
    found = (_effects(table, column, default) for column in table.spec.columns)
    return tuple(effects for effects in found if effects is not None)


def _effects(table: Table, column: Column, default: str) -> Effects | None:
    rows = {row.key: row for row in table.spec.rows}
    if default not in rows or not table.cell(default, column.key).by_seed:
        return None
    base = table.cell(default, column.key)
    effects = []
    for row in table.spec.rows:
        filled = table.cell(row.key, column.key)
        # A row that shares the default's job in this column changes nothing in it.
        if filled.planned.job == base.planned.job and filled.cell.metric == base.cell.metric:
            continue
        effect = _effect(row, filled, base)
        if effect is not None:
            effects.append(effect)
    if not effects:
        return None
    values = list(base.by_seed.values())
    return Effects(
        column=column,
        default_row=rows[default],
        default=sum(values) / len(values),
        on=_images(base),
        rows=tuple(effects),
        order=_order(effects),
    )


def _effect(row: Row, filled: Filled, base: Filled) -> Effect | None:
    seeds = [seed for seed in filled.by_seed if seed in base.by_seed]
    if not seeds:
        return None
    apart = summarise_difference(filled.by_seed, base.by_seed, seeds)
    printed, default = filled.cell.printed, base.cell.printed
    known = printed is not None and default is not None and printed.value is not None and default.value is not None
    return Effect(
        row=row,
        seeds=len(seeds),
        measured=apart[0],
        low=apart[1] if len(seeds) > 1 else None,
        high=apart[2] if len(seeds) > 1 else None,
        published=round(float(printed.value) - float(default.value), 6) if known else None,  # type: ignore[union-attr, arg-type]
        marks=printed.marks if printed is not None else (),
    )


def summarise_difference(
    one: Mapping[int, float], other: Mapping[int, float], seeds: list[int]
) -> tuple[float, float, float]:
    """Give the mean difference over seeds and Student's 95 % interval of it."""
    summary = summarise([one[seed] - other[seed] for seed in seeds])
    return summary.mean, summary.low, summary.high


def _images(filled: Filled) -> str:
    result = filled.result
    images = result.facts.get("images") if result is not None else None
    return str(images["said"]) if images else ""


def _order(effects: list[Effect]) -> Correlation | None:
    pairs = [(effect.measured, effect.published) for effect in effects if effect.published is not None]
    if len(pairs) < LEAST_ROWS:
        return None
    measured, published = zip(*pairs, strict=True)
    return rank_correlation(measured, published, measure=kendall)
