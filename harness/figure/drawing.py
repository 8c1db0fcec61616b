"""A table and what is asked of its figure -> `Drawing`, which becomes a file or shows itself in a notebook."""

from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.figure.catalog import select_chart, with_axes
from harness.judge.judged import judged_tables
from harness.judge.table import Table
from harness.judge.trend import TableTrend, find_trends
from harness.machine import Machine
from harness.plan.plan import Options
from harness.specs import Spec
from harness.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is asked of a figure, by the names of `harness figure`'s options.

    `x` and `y` are columns, by key or label, on the axes of its points; `kind` and `style` are names of
    `harness.figure.catalog` (None: the chart that the table is drawn as).
    """

    kind: str | None = None
    x: str | None = None
    y: str | None = None
    points: str = "both"
    style: str = "paper"
    pareto: bool = False

    def of(self, spec: Spec) -> tuple["Chart", Spec]:
        """Return the chart with its kind, and the table with its axes.

        Raises `HarnessError` for a chart that the table cannot be drawn as, and for axes that are no columns of it.
        """
        kind = self.kind
        if self.x or self.y:
            if kind not in (None, "points"):
                raise HarnessError(f"--chart {kind}: has no columns on its axes; leave out --chart, or --x and --y")
            spec, kind = with_axes(spec, self.x, self.y), "points"
        return replace(self, kind=select_chart(spec, kind)), spec

    def file_name(self, spec: Spec) -> str:
        """Return the name, without suffix, of the file that the figure of a table goes to: what was asked is in it."""
        axes = spec.axes if (self.x or self.y) and spec.axes else filter(None, [self.kind])
        return "-".join((spec.name, *axes))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure that is drawn when it is shown or saved; a `trend` is drawn in place of the chart."""

    table: Table
    chart: Chart
    trend: TableTrend | None = None

    @property
    def is_measured(self) -> bool:
        """Whether anything in it was measured, or only published."""
        return any(filled.measurement for filled in self.table.cells.values())

    def save(self, path: str | Path) -> Path:
        """Write it as PNG, SVG or PDF, by the suffix.  Raises `HarnessError` as `harness.figure.draw.draw` does."""
        from harness.figure.draw import draw  # noqa: PLC0415 -- a second, which only drawing costs

        path = Path(path)
        draw(self.table, path, **self._settings)
        return path

    def _repr_svg_(self) -> str:
        """Return what a notebook shows."""
        from harness.figure.draw import render_figure  # noqa: PLC0415

        return render_figure(self.table, ".svg", **self._settings).decode()

    @property
    def _settings(self) -> dict[str, Any]:
        chart = self.chart
        return {
            "chart": chart.kind,
            "points": chart.points,
            "style": chart.style,
            "pareto": chart.pareto,
            "trend": self.trend,
        }


def make_drawing(spec: Spec, chart: Chart, options: Options, store: Store, here: Machine | None) -> Drawing:
    """Judge a table by the results in a store, measuring nothing, for a chart that is its own (`Chart.of`)."""
    if chart.kind == "points" and spec.axes:
        options = replace(options, columns=tuple(map(escape, spec.axes)))  # they may be extra ones
    judged = judged_tables([spec], options, store, here)
    (table,), trend = judged.tables, None
    if chart.kind == "trend":
        (trend,) = find_trends(judged.plan, store.all_results(), options)
    return Drawing(table=table, chart=chart, trend=trend)
