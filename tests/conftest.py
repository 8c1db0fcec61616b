"""What holds for every test: the order in which files start, and no variables of the test runner in the environment."""

import os

import pytest
from hypothesis import settings

# Files in the order of their run time, longest first, so that parallel workers end at about the same time.  A cluster
# mostly waits: its file starts at once and overlaps with all others.
LONGEST_FIRST = (
    "test_slurm",
    "test_kills",
    "test_jobs",
    "test_plugin",
    "test_training",
    "test_accuracy_cli",
    "test_cli",
    "test_evaluate",
)

# xdist sets these for its workers.  A program started by a test would take them for the user's.
OF_THE_RUNNER = ("COLUMNS", "LINES", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID")


def pytest_configure() -> None:
    # How long an example takes depends on what else the machine does.
    settings.register_profile("shared machine", deadline=None)
    settings.load_profile("shared machine")
    for name in OF_THE_RUNNER:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)
