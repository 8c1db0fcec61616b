"""One evaluation pass for all models: how much faster than a pass for each, and its memory.  Run by `tox -e bench`."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.evaluation_pass import FOUR_VIEWS, ONE_VIEW, compare, featherweights, photographs, real


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("images"), count=384)


def test_with_one_preprocessing_one_pass_is_at_least_5_times_as_fast_as_8(images: Path, tmp_path: Path) -> None:
    comparison = compare(images, tmp_path, featherweights(tmp_path, ONE_VIEW), rounds=7)
    print(f"\nseparate / one pass: {comparison.median:.2f} {comparison.interval}")
    assert comparison.median >= 5


def test_with_four_preprocessings_one_pass_is_at_least_2_5_times_as_fast_as_8(images: Path, tmp_path: Path) -> None:
    comparison = compare(images, tmp_path, featherweights(tmp_path, FOUR_VIEWS), rounds=7)
    print(f"\nseparate / one pass: {comparison.median:.2f} {comparison.interval}")
    assert comparison.median >= 2.5


def test_real_models_on_the_cpu_are_never_slower_in_one_pass(tmp_path: Path) -> None:
    comparison = compare(photographs(tmp_path / "images", count=96), tmp_path, real(tmp_path), rounds=5)
    print(f"\nseparate / one pass: {comparison.median:.2f} {comparison.interval}")
    assert comparison.interval[1] >= 1


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file
from benchmarks import evaluation_pass
from harness.jobs.data.images import Images
from harness.jobs.evaluate import evaluate

count, root = int(sys.argv[1]), Path(sys.argv[2])
tiny = next((root / "images").rglob("*.JPEG")).read_bytes()
images = Images(
    data="imagenet", where="fake", classes=1000,
    names=tuple(f"n01440764/ILSVRC2012_val_{index % 50000 + 1:08d}_{index}.JPEG" for index in range(count)),
    labels=np.zeros(count, dtype=np.int32), sizes=np.full(count, len(tiny)), read=lambda _position: tiny,
)
evaluate.open_images = lambda *_: images
evaluation_pass.together(root, root, [("featherweight", 32, 1.0)], root / f"runs{count}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """The same peak for 10,000 and 100,000 images, within 10 %."""
    photographs(tmp_path / "images", count=1, sizes=((40, 40),))
    featherweights(tmp_path, ONE_VIEW)

    def peak(count: int) -> int:
        command = [sys.executable, "-c", PEAK, str(count), str(tmp_path)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    few, many = peak(10_000), peak(100_000)
    print(f"\npeak memory: {few / 1024:.0f} MiB for 10,000 images, {many / 1024:.0f} MiB for 100,000")
    assert many <= 1.1 * few
