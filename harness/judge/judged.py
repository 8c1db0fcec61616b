"""Specs + `Options` + `Store` -> judged tables: the one path by which every command comes to its verdicts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.judge.table import Table, fill
from harness.judge.verdict import Diff, compare
from harness.machine import Machine
from harness.plan.plan import Options, Plan, make_plan
from harness.specs import Spec
from harness.store.result import Result
from harness.store.select import Elsewhere, Selection, select_results
from harness.store.store import Store


@dataclass(frozen=True, kw_only=True)
class JudgedTables:
    """Some tables, judged: a diff for each spec, in the order of the specs.

    `plan` has the jobs behind the cells, `selection` the stored results that counted.
    """

    plan: Plan
    selection: Selection
    diffs: tuple[Diff, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The filled table of each diff."""
        return tuple(diff.table for diff in self.diffs)


def judged_tables(
    specs: Iterable[Spec],
    options: Options | None,
    store: Store,
    here: Machine | None,
    *,
    newest_failures: bool = False,
) -> JudgedTables:
    """Judge tables by the results in a store, measuring nothing.

    `here` is this machine: its throughputs count before those of others.  `newest_failures` makes a failure count that
    is newer than a good result, as a gate needs it (`harness.store.select`).

    Raises `HarnessError` for rows or columns that no table has, for a machine on which nothing was measured, and where
    two results claim the same run.
    """
    plan = make_plan(specs, options)
    machine_name = options.machine if options else ""
    selection = select_results(plan, store, here, newest_failures=newest_failures, machine_name=machine_name)
    diffs = judge_plan(plan, selection.results, selection.elsewhere)
    return JudgedTables(plan=plan, selection=selection, diffs=diffs)


def judge_plan(
    plan: Plan, results: Mapping[str, Result], elsewhere: Mapping[str, Elsewhere] | None = None
) -> tuple[Diff, ...]:
    """Judge every table of a plan by results given by the key of their job; `elsewhere` are those that do not count.

    For results that were just measured: `judge_plan(plan, {**select_results(…).results, **measured})`.
    """
    return tuple(compare(fill(spec, plan, results, elsewhere)) for spec in plan.specs)
