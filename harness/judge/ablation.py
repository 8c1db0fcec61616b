"""A table trained at a small scale -> its ablation: what each row changes there, and what the paper says it changes.

Accuracies of small models on other images say nothing about the published ones; whether a change helps or harms, and
which change matters more, may.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from harness.judge.table import FilledCell, Table, fingerprint_of
from harness.specs import Column, Row
from harness.stats import Interval, kendall, mean_interval, rank_correlation

# The order of fewer rows than these is not worth a number.
LEAST_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class AblationEffect:
    """What a row's change does: its accuracy less the default row's, in points.

    `measured` is the mean over seeds, each compared with the default row of the same seed, `low` and `high` bound it
    with 95 % confidence (Student's t over seeds; None with one seed).  `published` is None where one of the two values
    was not published; `marks` are those of its footnotes.
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
        """Whether the interval excludes zero, so that the sign is not in question."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def same_sign(self) -> bool | None:
        """Whether the change helps or harms here as it does in the paper; None where the paper says neither."""
        return None if not self.published else self.measured * self.published > 0


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The effects in one column of a table.

    `default` is the mean accuracy of the default row in percent, over `seeds`; `on` describes the images that it was
    measured on.  `left_out` has a clause for each seed of a row that was asked for and is in no effect.
    """

    column: Column
    default_row: Row
    default: float
    seeds: int
    on: str
    rows: tuple[AblationEffect, ...]
    order: Interval | None
    left_out: tuple[str, ...] = ()

    def agreeing(self, *, clear: bool = False) -> tuple[int, int]:
        """Return how many effects have the published sign, of how many that have one; `clear` ones only if asked."""
        effects = (effect for effect in self.rows if effect.clear or not clear)
        signs = [effect.same_sign for effect in effects if effect.same_sign is not None]
        return sum(signs), len(signs)


def ablation_of(table: Table) -> tuple[Ablation, ...]:
    """Compute the ablation of every column that was trained at a small scale."""
    default = next((row for row in table.spec.rows if row.key == table.spec.default), None)
    if default is None or not any(filled.planned.scaled_down for filled in table.cells.values()):
        return ()
    ablations = (_column_ablation(table, column, default) for column in table.spec.columns)
    return tuple(ablation for ablation in ablations if ablation is not None)


def _column_ablation(table: Table, column: Column, default: Row) -> Ablation | None:
    base = table.cell(default.key, column.key)
    if not base.by_seed:
        return None
    cells = (table.cell(row.key, column.key) for row in table.spec.rows)
    # A row that shares the default's job in this column changes nothing in it.
    same = (base.planned.job, base.cell.metric)
    changed = [filled for filled in cells if (filled.planned.job, filled.cell.metric) != same]
    effects = [effect for filled in changed if (effect := _effect(filled, base))]
    if not effects:
        return None
    images = base.result.facts.get("images") if base.result else None
    return Ablation(
        column=column,
        default_row=default,
        default=fmean(base.by_seed.values()),
        seeds=len(base.by_seed),
        on=str(images["said"]) if images else "",
        rows=tuple(effects),
        order=_order(effects),
        left_out=tuple(reason for filled in changed for reason in _left_out(filled, base)),
    )


def _comparable_seeds(filled: FilledCell, base: FilledCell) -> list[int]:
    """Return the seeds that both rows have, measured and trained on the same images."""
    return [seed for seed in filled.by_seed if seed in base.by_seed and _images(filled, seed) == _images(base, seed)]


def _images(filled: FilledCell, seed: int) -> str | None:
    return fingerprint_of(filled.result_by_seed[seed], filled.behind)


def _left_out(filled: FilledCell, base: FilledCell) -> Iterator[str]:
    """Yield why each requested seed of a row is in no effect; nothing for a row that was not trained at all."""
    label, there = filled.cell.row.label, _comparable_seeds(filled, base)
    for seed in filled.requested_seeds if filled.result_by_seed else ():
        result = filled.result_by_seed.get(seed)
        if seed not in filled.by_seed:
            reason = f"failed: {result.error}" if result is not None and result.error else "is not measured"
        elif seed not in base.by_seed:
            reason = f"'{base.cell.row.label}' has no such seed"
        else:
            reason = f"other images than those of '{base.cell.row.label}'"
        if seed not in there:
            yield f"seed {seed} of '{label}' ({reason})"


def _effect(filled: FilledCell, base: FilledCell) -> AblationEffect | None:
    seeds = _comparable_seeds(filled, base)
    if not seeds:
        return None
    difference = mean_interval([filled.by_seed[seed] - base.by_seed[seed] for seed in seeds])
    published, default = filled.published_number, base.published_number
    return AblationEffect(
        row=filled.cell.row,
        seeds=len(seeds),
        measured=difference.value,
        low=difference.low if len(seeds) > 1 else None,
        high=difference.high if len(seeds) > 1 else None,
        published=None if published is None or default is None else round(published - default, 6),
        marks=filled.cell.published.marks if filled.cell.published else (),
    )


def _order(effects: list[AblationEffect]) -> Interval | None:
    pairs = [(effect.measured, effect.published) for effect in effects if effect.published is not None]
    if len(pairs) < LEAST_ROWS:
        return None
    measured, published = zip(*pairs, strict=True)
    return rank_correlation(measured, published, measure=kendall)
