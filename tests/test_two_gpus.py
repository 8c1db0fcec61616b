"""Whole commands on fake GPUs: which cards they use, what they leave, and that nothing is forked after CUDA."""

import json
from pathlib import Path
from typing import Any

from tests.fake_gpus import Ran, needs_compiler, run_python

pytestmark = needs_compiler

# Measures throughputs as a worker does, one after the other.
MEASURE = """
import json, sys
from harness.jobs.speed.throughput import measure_throughput
from harness.machine import pin_gpus
from harness.plan.job import Job
pin_gpus()
for device, settings in json.loads(sys.argv[1]):
    job = Job.of("throughput", {"model": "resnet18", "res": 32, "repeats": 3, "batch": "auto", **settings})
    metrics, facts, warnings = measure_throughput(job, lambda _: None, device=device, threads=0)
    print(json.dumps([facts, list(warnings)]))
"""

PAPER = {"protocol": "paper", "memory": "2GiB"}


def measured(folder: Path, *jobs: tuple[str, dict[str, str]], **settings: str) -> tuple[Ran, list[Any]]:
    ran = run_python(folder, "-c", MEASURE, json.dumps(jobs), **settings)
    assert ran.code == 0, ran.error
    return ran, [json.loads(line) for line in ran.out.splitlines()]


def test_modern_takes_the_saturation_batch_size_and_cudnn_searches_only_for_what_is_timed(tmp_path: Path) -> None:
    job = ("cuda:0", {"protocol": "modern", "memory": "all"})
    ran, [(facts, _)] = measured(tmp_path, job, FAKE_IMAGE_MIB="20000")
    # Of 80 GB, 4 images take 80,000 MiB and 8 do not fit.
    assert facts["batch"] in (1, 2, 4)
    assert {probe["outcome"] for probe in facts["probes"]} <= {"timed", "too large"}
    assert facts["flags"]["cudnn_benchmark"] is True
    tried = [line.partition(" ")[2] for line in ran.log.splitlines() if " images " in line]
    timed = f"images {facts['batch']} search by cuDNN True"
    assert tried[-2:] == [timed, "images 2 search by cuDNN False"]  # the latter to count what a pass does
    assert {line for line in tried if line.endswith("True")} == {timed}
    assert "BAD FORK" not in ran.log
    assert ran.cards == {"a"}


def test_the_end_of_the_memory_is_found_however_it_is_told_and_what_others_hold_is_not_our_context(
    tmp_path: Path,
) -> None:
    held = {"FAKE_GPUS": "2", "FAKE_OTHERS": str(70 * 2**30), "FAKE_OOM": "Triton Error [CUDA]: out of memory"}
    large = {"protocol": "paper", "memory": "16GiB"}
    ran, [(small, calm), (full, warned)] = measured(tmp_path, ("cuda:1", PAPER), ("cuda:1", large), **held)
    # An image takes 100 MiB, the context 520 of 2,048.
    assert small["batch"] == 15
    assert {probe["outcome"] for probe in small["probes"]} == {"fits", "out of memory"}
    assert (small["context"], small["held_by_others"]) == (520 * 2**20, 70 * 2**30)
    assert not any("other processes hold" in text for text in calm)
    # Of 85.03 GB others hold 75.16, and our context 0.55.
    assert full["batch"] == 88
    assert any(
        text
        == "other processes hold 70.0 GiB of the GPU and leave 8.7, which bounds the batch: measure when it is idle"
        for text in warned
    )
    assert ran.cards == {"b"}


# A training on two of three GPUs, which its lane has: float16 with a scaler, channels last, compiled.
TRAIN = """
import json
from pathlib import Path
from harness.jobs import train
from harness.machine import pin_gpus
from harness.run.messages import Inputs
from tests.trainings import smoke
pin_gpus()
job = smoke(epochs=1, precision="float16", channels_last=True, compile=True)
metrics, facts, _ = train.train(
    job, Inputs(workers=0), lambda _: None, devices=("cuda:1", "cuda:2"), runs=Path("runs"),
    weights=Path("runs/weights.safetensors"), cores=1,
)
print(json.dumps([facts["processes"], facts["hyperparameters"]["precision"], facts["history"][0]["loss"]]))
"""


def test_a_training_in_float16_runs_on_the_cards_of_its_lane_with_a_process_for_each(tmp_path: Path) -> None:
    ran = run_python(tmp_path, "-c", TRAIN, FAKE_GPUS="3")
    assert ran.code == 0, ran.error
    processes, precision, loss = json.loads(ran.out.splitlines()[-1])
    assert (processes, precision) == (2, "float16")
    assert 0 < loss < 10
    assert sorted(ran.contexts().values()) == [["b"], ["c"]]
    assert ran.log.count("autocast torch.float16") > 0
    assert ran.log.count("compile") == 2
    assert "BAD FORK" not in ran.log


# A training on one GPU that was stopped, and is resumed.
RESUME = """
import json, os, signal
from pathlib import Path
import torch
from harness.jobs.data.open import open_images
from harness.jobs.training.distributed import World
from harness.jobs.training.run import ProcessContext, assemble_trainer
from harness.jobs.training.trainer import TrainingStopped
from harness.run.messages import Inputs
from tests.trainings import smoke
job = smoke(epochs=2, precision="float16")
images, tests = (open_images("digits", "sklearn/digits", split=split) for split in ("train", "test"))
def trainer(stop):
    context = ProcessContext(device="cuda:1", cores=1, inputs=Inputs(), runs=Path("runs"))
    return assemble_trainer(job, images, tests, context=context, world=World(), report=lambda _: None,
                            stop_requested=lambda: stop)
try:
    trainer(True).run()
except TrainingStopped:
    pass
again = trainer(False)
again._resume()
states = again.step.optimizer.state_dict()["state"].values()
print(json.dumps([
    again.state.steps_done, len(states), sum(getattr(state["step"], "on_gpu", False) for state in states),
    again.step.scaler.is_enabled(),
]))
"""


def test_the_steps_that_adamw_counts_stay_on_the_cpu_when_a_training_is_resumed(tmp_path: Path) -> None:
    ran = run_python(tmp_path, "-c", RESUME, FAKE_GPUS="2")
    assert ran.code == 0, ran.error
    steps, states, on_gpu, scaled = json.loads(ran.out.splitlines()[-1])
    assert steps > 0
    assert states > 10
    assert (on_gpu, scaled) == (0, True)


# Two evaluations, the first of weights that do not exist: it ends before the pass begins.
EVALUATE = """
from multiprocessing import Pipe
from pathlib import Path
import timm
from safetensors.torch import save_file
from harness.jobs.worker import run_batch
from harness.machine import Machine
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs
Path("weights").mkdir()
Path("runs").mkdir()
model = timm.create_model("test_vit", num_classes=10)
save_file(model.state_dict(), "weights/test_vit.w.safetensors")
del model
view = {"precision": "float16", "res": 160, "crop": 0.875, "interpolation": "bicubic", "norm": "imagenet"}
jobs = tuple(
    Job.of("evaluate", {**view, "data": "digits", "model": name, "weights": "w"}) for name in ("test_vit2", "test_vit")
)
machine = Machine(device="cuda", name="Tesla V100", memory=16 * 2**30)
inputs = Inputs(data={"digits": "sklearn/digits"}, weights=Path("weights"), workers=0)
ours, theirs = Pipe(duplex=False)
run_batch(Batch(jobs=jobs, device="cuda:0", devices=("cuda:0", "cuda:1"), machine=machine, software={},
                runs=Path("runs"), inputs=inputs), theirs)
"""


def test_an_evaluation_shares_two_gpus_after_another_one_failed_early(tmp_path: Path) -> None:
    two_v100 = {"FAKE_GPUS": "2", "FAKE_NAMES": "Tesla V100;Tesla V100", "FAKE_SM": "70;70"}
    ran = run_python(tmp_path, "-c", EVALUATE, **two_v100)
    assert ran.code == 0, ran.error + (tmp_path / "runs" / "worker.log").read_text(encoding="utf-8")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("runs/*/*.json")]
    failed, good = sorted(results, key=lambda result: result["error"] is None)
    assert "test_vit2" in failed["error"]
    assert good["error"] is None
    assert good["facts"]["pass"]["devices"] == ["cuda:0", "cuda:1"]
    assert "BAD FORK" not in ran.log
    assert sorted(ran.contexts().values()) == [["a"], ["b"]]
    assert good["software"]["cudnn_seen"] == failed["software"]["cudnn_seen"]
    assert (
        "sm_70 has no flash attention, which begins with sm_80: float16 takes the memory-efficient kernel instead"
        in good["warnings"]
    )
