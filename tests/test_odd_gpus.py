"""GPUs that are denied, lost, split or ordered otherwise: each for itself, numbered as torch has them."""

import json
from pathlib import Path

import pytest

from tests.fake_gpus import needs_compiler, run_python

pytestmark = needs_compiler

# What the harness lists, and what torch counts in a process that the harness has prepared.
ASK = """
import json, sys
from harness.machine import gpus, pin_gpus, survey
listed = {gpu.index: gpu.uuid[:6] for gpu in gpus()}
seen = {}
if "torch" in sys.argv:
    pin_gpus()
    import torch
    properties = torch.cuda.get_device_properties
    seen = {n: f"GPU-{properties(n).uuid}"[:6] for n in range(torch.cuda.device_count())}
print(json.dumps([listed, list(survey().problems), survey().reason, seen]))
"""


def ask(folder: Path, *arguments: str, **settings: str) -> tuple[dict[str, str], list[str], str, dict[str, str]]:
    ran = run_python(folder, "-c", ASK, *arguments, **settings)
    assert ran.code == 0, ran.error
    listed, problems, reason, seen = json.loads(ran.out)
    return listed, problems, reason, seen


@pytest.mark.parametrize(
    ("settings", "listed", "problems"),
    [
        ({"FAKE_DENY": ",0,"}, ["GPU-b0", "GPU-c0"], ["GPU 0 is left out: Insufficient Permissions"]),
        ({"FAKE_LOST": ",1,", "CUDA_VISIBLE_DEVICES": "1"}, ["GPU-c0"], ["GPU 1 is left out: GPU is lost"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-b"}, ["GPU-c0", "GPU-b0"], []),
    ],
)
def test_a_gpu_that_does_not_answer_is_left_out_with_a_word_and_the_others_are_numbered_as_in_torch(
    tmp_path: Path, settings: dict[str, str], listed: list[str], problems: list[str]
) -> None:
    expected = {str(number): uuid for number, uuid in enumerate(listed)}
    found, said, _, seen = ask(tmp_path, "torch", FAKE_GPUS="3", **settings)
    assert (found, said, seen) == (expected, problems, expected)


def test_a_gpu_without_a_known_memory_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    found, said, _, seen = ask(tmp_path, "torch", FAKE_GPUS="2", FAKE_NO_MEMORY=",0,")
    assert found == {"1": "GPU-b0"}
    assert said == [
        "cuda:0 NVIDIA H100 80GB HBM3 is left out: the driver does not say how much memory it has (Not Supported)"
    ]
    assert seen["1"] == "GPU-b0"


def test_a_number_means_the_same_gpu_here_and_in_torch_whatever_the_order_that_cuda_is_told(tmp_path: Path) -> None:
    mixed = {"FAKE_GPUS": "2", "FAKE_NAMES": "Tesla V100;NVIDIA H100", "FAKE_ORDER": "b,a"}
    fastest = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "1"}
    found, said, _, seen = ask(tmp_path, "torch", **mixed, **fastest)
    assert (found, said, seen) == ({"0": "GPU-a0"}, [], {"0": "GPU-a0"})
    # Where nothing is said, as nvidia-smi lists them.
    assert ask(tmp_path, **mixed)[0] == {"0": "GPU-a0", "1": "GPU-b0"}


def test_a_mig_instance_is_named_and_a_process_gets_one(tmp_path: Path) -> None:
    found, said, _, _ = ask(tmp_path, FAKE_MIG=",0,")
    assert found == {"0": "MIG-a0"}
    (instance,) = said
    assert instance == (
        "1 MIG instance is left out, as a process gets one alone: choose it with CUDA_VISIBLE_DEVICES, of "
        "MIG-a1000000-0000-0000-0000-000000000000"
    )
    assert ask(tmp_path, FAKE_MIG=",0,", CUDA_VISIBLE_DEVICES="MIG-a1")[:2] == ({"0": "MIG-a1"}, [])
    # Next to a whole GPU, that one.
    assert ask(tmp_path, FAKE_GPUS="2", FAKE_MIG=",0,")[0] == {"0": "GPU-b0"}


def test_an_initialisation_that_fails_keeps_its_reason(tmp_path: Path) -> None:
    code = "from harness.machine import describe; describe('cuda')"
    assert run_python(tmp_path, "-c", code, FAKE_INIT="18").error.splitlines()[-1] == (
        "harness.errors.HarnessError: --device cuda: no NVIDIA driver answers on this machine (RM has detected an "
        "NVML/RM version mismatch.); use --device cpu"
    )
    assert (
        run_python(tmp_path, "-c", code, CUDA_VISIBLE_DEVICES="")
        .error.splitlines()[-1]
        .endswith(
            "--device cuda: CUDA_VISIBLE_DEVICES= leaves no GPU of NVIDIA H100 80GB HBM3 "
            "GPU-a0000000-0000-0000-0000-000000000000; use --device cpu"
        )
    )


def test_where_auto_takes_the_cpu_because_the_driver_fails_that_is_a_warning(tmp_path: Path) -> None:
    code = "from harness.run.target import device_warnings as f; print(*f('auto'), *f('cpu'), sep='|')"
    assert run_python(tmp_path, "-c", code, FAKE_INIT="18").out.strip() == (
        "no NVIDIA driver answers (RM has detected an NVML/RM version mismatch.), so the CPU is used"
    )
    assert run_python(tmp_path, "-c", code, FAKE_GPUS="2", FAKE_DENY=",1,").out.strip() == (
        "GPU 1 is left out: Insufficient Permissions"
    )
    assert run_python(tmp_path, "-c", code, FAKE_INIT="9").out.strip() == ""


def test_doctor_names_every_gpu_that_is_left_out(tmp_path: Path) -> None:
    ran = run_python(tmp_path, "-m", "harness", "doctor", FAKE_GPUS="3", FAKE_DENY=",0,", FAKE_LOST=",2,")
    lines = ran.out.splitlines()
    assert "problem   GPU 0 is left out: Insufficient Permissions" in lines
    assert "problem   GPU 2 is left out: GPU is lost" in lines
    assert any(line.startswith("cuda:0    NVIDIA H100 80GB HBM3, sm_90, driver 580.159.04") for line in lines)
