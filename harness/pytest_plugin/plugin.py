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
    from harness.pytest_plugin.measure import MeasuredValue, MeasurementSetup


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; their defaults are the environment variables that the command line reads too."""
    group = parser.getgroup("harness", "throughput and accuracy of models")
    group.addoption(
        "--harness-runs",
        default=os.environ.get("HARNESS_RUNS"),
        metavar="DIR",
        help="Folder in which results are stored; otherwise they go with pytest's temporary folders.",
    )
    group.addoption("--harness-device", default=os.environ.get("HARNESS_DEVICE", "auto"), metavar="auto|cpu|cuda[:N]")
    group.addoption(
        "--harness-data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="Where a dataset is, as imagenet=/data/imagenet; repeatable.",
    )
    group.addoption(
        "--harness-weights",
        default=os.environ.get("HARNESS_WEIGHTS"),
        metavar="DIR",
        help="Folder of weights, files named after timm's models.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that measure a throughput as benchmarks, for `--benchmark-only` and `--benchmark-skip`."""
    if not config.pluginmanager.hasplugin("benchmark"):
        return
    for item in items:
        names = getattr(item, "fixturenames", [])
        if "harness_throughput" in names and "benchmark" not in names:
            names.append("benchmark")


class Throughput:
    """Measures one throughput; call it with a timm model, or `of_step` with a step of your own."""

    def __init__(self, setup: "Callable[[], MeasurementSetup]", record: "Callable[[MeasuredValue], None]") -> None:
        self._setup = setup
        self._record = record
        self._used = False

    def __call__(self, model: str, *, res: int = 224, **settings: Any) -> "MeasuredValue":  # noqa: ANN401 -- of any kind
        """Measure a timm model in a process of its own, as `harness reproduce` does.

        `settings` are those of a throughput job: `batch`, `repeats`, `protocol`, `memory`.
        """
        from harness.pytest_plugin.measure import throughput

        return self._once(lambda: throughput(self._setup(), model, res, settings))

    def of_step(self, step: Callable[[], object], *, batch: int, repeats: int = 30) -> "MeasuredValue":
        """Time a step that takes `batch` images through a model of your own, in this process.

        On a GPU the step has to wait for the device: `torch.cuda.synchronize()` at its end.
        """
        from harness.pytest_plugin.measure import step_throughput

        return self._once(lambda: step_throughput(step, batch=batch, repeats=repeats))

    def _once(self, measure: "Callable[[], MeasuredValue]") -> "MeasuredValue":
        if self._used:
            pytest.fail("harness_throughput measures one throughput per test; parametrize it for more", pytrace=False)
        self._used = True
        measured = _or_fail(measure)
        self._record(measured)
        return measured


class Accuracy:
    """Measures an accuracy; call it with weights that have a name, or `of_predictions` with predictions of your own."""

    def __init__(self, setup: "Callable[[], MeasurementSetup]") -> None:
        self._setup = setup

    def __call__(self, weights: str, **settings: Any) -> "MeasuredValue":  # noqa: ANN401 -- of any kind
        """Evaluate `MODEL.TAG` over the images of `--harness-data`.

        `settings` are those of an evaluate job: `data`, `res`, `crop`, `interpolation`, `norm`, `precision`.
        """
        from harness.pytest_plugin.measure import accuracy

        return _or_fail(lambda: accuracy(self._setup(), weights, settings))

    def of_predictions(self, predictions: Iterable[int], labels: Iterable[int]) -> "MeasuredValue":
        """Return the share of predictions that are right, in percent, with Wilson's interval."""
        from harness.pytest_plugin.measure import prediction_accuracy

        return _or_fail(lambda: prediction_accuracy(predictions, labels))


@pytest.fixture
def harness_throughput(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Throughput:
    """Measure the throughput of a model, once per test; pytest-benchmark, if installed, stores and compares it."""
    return Throughput(lambda: _setup(request.config, tmp_path_factory), _recorder(request))


@pytest.fixture
def harness_accuracy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Accuracy:
    """Measure the accuracy of weights or of predictions."""
    return Accuracy(lambda: _setup(request.config, tmp_path_factory))


def _setup(config: pytest.Config, folders: pytest.TempPathFactory) -> "MeasurementSetup":
    from harness.pytest_plugin.measure import MeasurementSetup, parse_data

    runs, weights = config.getoption("--harness-runs"), config.getoption("--harness-weights")
    return MeasurementSetup(
        runs=Path(runs) if runs else folders.getbasetemp() / "harness-runs",
        device=config.getoption("--harness-device"),
        data=parse_data([*os.environ.get("HARNESS_DATA", "").split(), *config.getoption("--harness-data")]),
        weights=Path(weights) if weights else None,
    )


def _or_fail(measure: "Callable[[], MeasuredValue]") -> "MeasuredValue":
    """Fail the test with the sentence of an error that the user can fix, without a traceback."""
    from harness.cleaning import printable
    from harness.errors import HarnessError
    from harness.run.launch import Crashed

    try:
        return measure()
    except (HarnessError, Crashed) as error:
        message = printable(str(error))
    # Outside, or pytest would show the error a second time as what this one came from.
    pytest.fail(message, pytrace=False)


def _recorder(request: pytest.FixtureRequest) -> "Callable[[MeasuredValue], None]":
    """Return the function that hands a throughput to pytest-benchmark: a clock replays the samples.

    A round is one timed iteration in seconds an image, so that its operations a second are images a second.
    """
    if not request.config.pluginmanager.hasplugin("benchmark"):
        return lambda _measured: None
    times: list[float] = []
    marker = request.node.get_closest_marker("benchmark")
    options = {**(marker.kwargs if marker else {}), "timer": lambda: times.pop(0)}
    request.node.add_marker(pytest.mark.benchmark(**options), append=False)
    benchmark = request.getfixturevalue("benchmark")

    def record(measured: "MeasuredValue") -> None:
        times[:] = [mark for seconds in measured.samples for mark in (0.0, seconds / measured.batch)]
        benchmark.extra_info.update(batch=measured.batch, images_a_second=measured.value, run=measured.run)
        benchmark.pedantic(lambda: None, rounds=len(measured.samples), iterations=1)

    return record
