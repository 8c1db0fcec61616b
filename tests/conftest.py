"""What holds for every test: the order of the files, no variables of the test runner, flags that end with the test."""

import os
import sys
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def _attention_of_timm_as_it_was() -> Iterator[None]:
    """Restore what a job that ran in this process, instead of one of its own, left to the next test.

    A job sets its flags and ends with its process.  A network that is built with the attention of an earlier count is
    not, to the bit, that of a training which another process began.
    """
    before = _attention()
    yield
    if _attention() != before:
        from timm.layers import set_fused_attn

        set_fused_attn(enable=True, experimental=False)
        if others := sys.modules.get("harness.jobs.other_models"):
            others.set_attention()


def _attention() -> bool:
    """Return whether timm builds with fused attention, as it does by default."""
    layers = sys.modules.get("timm.layers")
    return layers is None or bool(layers.use_fused_attn())
