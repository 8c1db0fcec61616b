"""What is asked for, by the names of the command line's options -> `Options` of a plan, or what contradicts in it."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean
from harness.plan.plan import Options, Plan
from harness.specs.checked import check
from harness.specs.datasets import DATASETS
from harness.specs.kinds import KINDS, RECIPE


def make_options(params: Mapping[str, Any]) -> Options:
    """Make the options of a plan from the parameters of a command, or of a call of `harness.api`.

    Raises `HarnessError` for an option of training without `--train`.
    """
    only = (*(params.get("only") or ()), *(("throughput",) if params.get("throughput_only") else ()))
    train = bool(params.get("train") or params.get("retrain"))
    scale = params.get("scale") or "full"
    for name, value in (("scale", scale != "full"), ("seeds", params.get("seeds")), ("set", params.get("changes"))):
        if value and not train:
            raise HarnessError(f"--{name} changes trainings alone; add --train")
    same = {field.name: params[field.name] for field in fields(Options) if params.get(field.name)}
    data = frozenset(params.get("data") or ())
    return Options(**{**same, "only": frozenset(only) or None, "data": data, "train": train, "scale": scale})


def check_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of kinds of jobs.  Raises `HarnessError` for one that there is not."""
    names = tuple(names)
    for name in names:
        if name not in KINDS:
            hint = did_you_mean(name, KINDS) or f"; they are {', '.join(KINDS)}"
            raise HarnessError(f"unknown kind of job '{name}'{hint}")
    return names


def check_change(name: str, value: object) -> Any:  # noqa: ANN401 -- of any of the types
    """Return the value of a recipe's setting.  Raises `HarnessError` for an unknown one, or what it cannot be."""
    if name not in RECIPE:
        raise HarnessError(f"recipes have no setting '{name}'{did_you_mean(name, RECIPE)}")
    return check(name, value, RECIPE[name])


def check_weights(folder: Path | None) -> Path | None:
    """Refuse a missing folder of weights before results of other weights are shown instead."""
    if folder is not None and not folder.is_dir():
        file = "is a file, not a folder; name the folder that it is in"
        raise HarnessError(f"--weights {folder}: {file if folder.exists() else 'there is no such folder'}")
    return folder


def known_data_sets(plan: Plan) -> set[str]:
    """Return the names of the datasets that ship with the program or that the cells of a plan name."""
    return {*DATASETS, *(str(p.cell.settings["data"]) for p in plan.cells if "data" in p.cell.settings)}


def check_data_sets(plan: Plan, names: Iterable[str]) -> None:
    """Raise `HarnessError` for a dataset that nothing would ever read."""
    known = known_data_sets(plan)
    for name in names:
        if name not in known:
            raise HarnessError(f"--data {name}=…: no table has a dataset '{name}'{did_you_mean(name, known)}")
