"""A pytest plugin: the fixtures `harness_throughput` and `harness_accuracy` measure what a test then gates.

pytest loads this file wherever the harness is installed, so nothing of the harness is imported before a test asks for
one of them.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.gauge import Gauged, Place


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; the variables of the command line of the harness stand behind them."""
    group = parser.getgroup("harness", "speed and accuracy of networks")
    group.addoption(
        "--harness-runs",
        default=os.environ.get("HARNESS_RUNS"),
        metavar="DIR",
        help="Folder in which results are kept; otherwise they go with pytest's temporary folders.",
    )
    group.addoption("--harness-device", default=os.environ.get("HARNESS_DEVICE", "auto"), metavar="auto|cpu|cuda[:N]")
    group.addoption(
        "--harness-data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="Where a data set is, as imagenet=/data/imagenet; repeatable.",
    )
    group.addoption(
        "--harness-weights",
        default=os.environ.get("HARNESS_WEIGHTS"),
        metavar="DIR",
        help="Folder of weights, files named after timm's models.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let pytest-benchmark know which tests measure a speed, for `--benchmark-only` and `--benchmark-skip`."""
    if not config.pluginmanager.hasplugin("benchmark"):
        return
    for item in items:
        names = getattr(item, "fixturenames", [])
        if "harness_throughput" in names and "benchmark" not in names:
            names.append("benchmark")


class Throughput:
    """Measures one speed; call it with a network of timm's, or `of_step` with a step of your own."""

    def __init__(self, place: "Callable[[], Place]", keep: "Callable[[Gauged], None]") -> None:
        self._place = place
        self._keep = keep
        self._used = False

    def __call__(self, model: str, *, res: int = 224, **settings: Any) -> "Gauged":  # noqa: ANN401 -- of any kind
        """Measure a network in a process of its own, as `harness reproduce` does.

        `settings` are those of a throughput job: `batch`, `repeats`, `protocol`, `memory`.
        """
        from harness.gauge import throughput

        return self._once(lambda: throughput(self._place(), model, res, settings))

    def of_step(self, step: Callable[[], object], *, batch: int, repeats: int = 30) -> "Gauged":
        """Time a step that takes `batch` images through a network of your own, in this process.

        On a GPU the step has to wait for the device: `torch.cuda.synchronize()` at its end.
        """
        from harness.gauge import step_throughput

        return self._once(lambda: step_throughput(step, batch=batch, repeats=repeats))

    def _once(self, measure: "Callable[[], Gauged]") -> "Gauged":
        if self._used:
            pytest.fail("harness_throughput measures one speed a test; parametrize it for more", pytrace=False)
        self._used = True
        found = _or_fail(measure)
        self._keep(found)
        return found


class Accuracy:
    """Measures an accuracy; call it with weights that have a name, or `of_guesses` with guesses of your own."""

    def __init__(self, place: "Callable[[], Place]") -> None:
        self._place = place

    def __call__(self, weights: str, **settings: Any) -> "Gauged":  # noqa: ANN401 -- of any kind
        """Evaluate `MODEL.TAG` over the images of `--harness-data`.

        `settings` are those of an evaluate job: `data`, `res`, `crop`, `interpolation`, `norm`, `precision`.
        """
        from harness.gauge import accuracy

        return _or_fail(lambda: accuracy(self._place(), weights, settings))

    def of_guesses(self, guesses: Iterable[int], labels: Iterable[int]) -> "Gauged":
        """Give the share of guesses that are right, in per cent, with Wilson's interval."""
        from harness.gauge import share_right

        return _or_fail(lambda: share_right(guesses, labels))


@pytest.fixture
def harness_throughput(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Throughput:
    """Measure the speed of a network, once a test; pytest-benchmark, where it is installed, keeps and compares it."""
    return Throughput(lambda: _place(request.config, tmp_path_factory), _keeper(request))


@pytest.fixture
def harness_accuracy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Accuracy:
    """Measure the accuracy of weights or of guesses."""
    return Accuracy(lambda: _place(request.config, tmp_path_factory))


def _place(config: pytest.Config, folders: pytest.TempPathFactory) -> "Place":
    from harness.gauge import Place, parse_data

    runs, weights = config.getoption("--harness-runs"), config.getoption("--harness-weights")
    told = [*os.environ.get("HARNESS_DATA", "").split(), *config.getoption("--harness-data")]
    return Place(
        runs=Path(runs) if runs else folders.getbasetemp() / "harness-runs",
        device=config.getoption("--harness-device"),
        data=parse_data(told),
        weights=Path(weights) if weights else None,
    )


def _or_fail(measure: "Callable[[], Gauged]") -> "Gauged":
    """Let what a user can mend fail the test with its sentence alone."""
    from harness.errors import HarnessError
    from harness.launch import Crashed

    try:
        return measure()
    except (HarnessError, Crashed) as error:
        said = str(error)
    # Outside, or pytest would show the error a second time as what this one came from.
    pytest.fail(said, pytrace=False)


def _keeper(request: pytest.FixtureRequest) -> "Callable[[Gauged], None]":
    """Give what hands a speed to pytest-benchmark: a clock that shows the times that were measured.

    A round is one timed run in seconds an image, so its operations a second are our images a second.
    """
    if not request.config.pluginmanager.hasplugin("benchmark"):
        return lambda _found: None
    times: list[float] = []

    def clock() -> float:
        return times.pop(0)

    marked = request.node.get_closest_marker("benchmark")
    options = {**(marked.kwargs if marked else {}), "timer": clock}
    request.node.add_marker(pytest.mark.benchmark(**options), append=False)
    benchmark = request.getfixturevalue("benchmark")

    def keep(found: "Gauged") -> None:
        times[:] = [mark for seconds in found.samples for mark in (0.0, seconds / found.batch)]
        benchmark.extra_info.update(batch=found.batch, images_a_second=found.value, run=found.run)
        benchmark.pedantic(lambda: None, rounds=len(found.samples), iterations=1)

    return keep
