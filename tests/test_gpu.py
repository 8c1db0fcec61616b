"""What the tests with a fake GPU expect, on a real one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.machine import gpus, torch_build
from harness.store.predictions import read

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpus() or torch_build()[1] is None, reason="needs a CUDA GPU and a CUDA build of torch"),
]

SPEC = """
[table]
title = "Models on a GPU"
[column.throughput]
label = "throughput"
job = "throughput"
metric = "throughput"
unit = "im/s"
set = { protocol = "paper" }
[row.small]
label = "small"
set = { model = "resnet18", res = 224 }
[row.middle]
label = "middle"
set = { model = "deit_small_patch16_224", res = 224 }
"""


def run_table(folder: Path, *options: str, spec: str = SPEC) -> list[dict[str, Any]]:
    (folder / "gpu.toml").write_text(spec, encoding="utf-8")
    command = [sys.executable, "-m", "harness", "reproduce", "./gpu.toml", "--device", "cuda", "-q", *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("runs/*/*.json"))]


def test_the_largest_batch_under_a_memory_limit_is_exact_and_confirmed(tmp_path: Path) -> None:
    for result in run_table(tmp_path, "--memory", "4GiB"):
        facts = result["facts"]
        outcomes = {probe["batch"]: probe["outcome"] for probe in facts["probes"]}
        assert outcomes[facts["batch"] + facts["steps_down"]] == "fits"
        assert outcomes[facts["batch"] + facts["steps_down"] + 1] == "out of memory"
        assert len(facts["probes"]) <= 12
        assert facts["emulated"] is True
        assert facts["peak_reserved"] <= 4 * 2**30


def test_events_and_wall_clock_agree_and_nvml_monitored(tmp_path: Path) -> None:
    for result in run_table(tmp_path, "--batch", "64"):
        samples, facts = result["metrics"]["throughput"]["samples"], result["facts"]
        assert len(samples) == 30
        assert sum(samples) == pytest.approx(facts["wall"], rel=0.05)
        assert facts["nvml"]["samples"][-1]["sm_clock"]
        assert facts["flags"]["tf32_matmul"] is False


def test_the_modern_protocol_is_faster_and_records_whether_it_compiled(tmp_path: Path) -> None:
    paper, modern = tmp_path / "paper", tmp_path / "modern"
    paper.mkdir()
    modern.mkdir()
    slow = {r["job"]["settings"]["model"]: r for r in run_table(paper, "--batch", "64")}
    for result in run_table(modern, "--batch", "64", "--protocol", "modern"):
        assert "not_compiled" in result["facts"]
        other = slow[result["job"]["settings"]["model"]]
        assert result["metrics"]["throughput"]["value"] > other["metrics"]["throughput"]["value"]


TRAINING = """
[table]
title = "A training on a GPU"
[column.throughput]
label = "throughput"
job = "train-speed"
metric = "throughput"
unit = "im/s"
[row.small]
label = "small"
set = { recipe = "deit-ti", batch_size = 256 }
"""


def test_the_parts_of_a_training_step_add_up_and_every_update_is_made(tmp_path: Path) -> None:
    (result,) = run_table(tmp_path, spec=TRAINING)
    metrics = {name: metric["value"] for name, metric in result["metrics"].items()}
    assert metrics["batch"] in (64, 128, 256)
    parts = [metrics[part] for part in ("augment", "forward", "backward", "update")]
    assert sum(parts) == pytest.approx(metrics["step"], rel=0.1)
    assert min(result["facts"]["parts"]["update"]) > 0.2 * max(result["facts"]["parts"]["update"])
    assert 0 < metrics["memory"] < 16
    assert result["facts"]["precision"] == "float16"


EVALUATION = """
[table]
title = "Accuracy on a GPU"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
set = { data = "pictures" }
[row.net]
label = "net"
set = { model = "deit_tiny_patch16_224", weights = "mine", res = 224 }
"""


def test_a_gpu_predicts_what_a_cpu_predicts(tmp_path: Path) -> None:
    import timm
    from PIL import Image
    from safetensors.torch import save_file

    draw = np.random.default_rng(0)
    for index in range(300):  # more than two shards
        path = tmp_path / "pictures" / str(index % 10) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    weights = tmp_path / "weights"
    weights.mkdir()
    save_file(
        timm.create_model("deit_tiny_patch16_224", num_classes=10).state_dict(),
        weights / "deit_tiny_patch16_224.safetensors",
    )
    (tmp_path / "gpu.toml").write_text(EVALUATION, encoding="utf-8")
    predictions = {}
    for device in ("cpu", "cuda"):
        options = ("--data", "pictures=pictures", "--weights", "weights", "--runs", device, "--device", device, "-q")
        command = [sys.executable, "-m", "harness", "reproduce", "./gpu.toml", *options]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        (path,) = (tmp_path / device).glob("*/*.npz")
        predictions[device] = read(path)
    assert predictions["cpu"].names == predictions["cuda"].names
    cpu, cuda = (predictions[device].heads["class"] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda.scores, cpu.scores, atol=1e-3)
