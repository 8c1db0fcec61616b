"""Which machine this is: GPUs as CUDA counts them and as papers call them, usable cores, builds that can run here."""

import importlib.metadata
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.doctor import can_run
from harness.errors import HarnessError
from harness.machine import (
    GIB,
    Gpu,
    Machine,
    cpu,
    describe,
    devices,
    gpu_index,
    gpus,
    same_software,
    torch_build,
    usable_cores,
)
from harness.machine.cpu import cpu_quotas, torch_threads
from harness.machine.nvidia import visible_gpus
from tests.fakes import H200, LAPTOP, V100, VERSIONS

NO_GPU = not gpus()


# GPUs as CUDA counts them.


def gpu(index: int, name: str, uuid: str) -> Gpu:
    return Gpu(index=index, name=name, memory=16 * GIB, architecture="sm_70", driver="535.1", uuid=uuid)


GPUS = [gpu(0, "first", "GPU-aaaa-1"), gpu(1, "second", "GPU-abbb-2"), gpu(2, "third", "GPU-cccc-3")]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        (None, ["first", "second", "third"]),
        ("0,1,2", ["first", "second", "third"]),
        ("2,0", ["third", "first"]),
        (" 1 , 2 ", ["second", "third"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["first"]),  # CUDA ignores what follows an entry that it does not know
        ("GPU-cccc-3", ["third"]),
        ("GPU-ab", ["second"]),
        ("GPU-c,0", ["third", "first"]),
        ("GPU-dddd,0", []),
    ],
)
def test_cuda_visible_devices_chooses_and_renumbers_the_gpus(setting: str | None, names: list[str]) -> None:
    left = visible_gpus(GPUS, setting)
    assert [gpu.name for gpu in left] == names
    assert [gpu.index for gpu in left] == list(range(len(names)))


# GPUs as papers call them.

MIB = 2**20


@pytest.mark.parametrize(
    ("name", "mebibytes", "published", "is_it"),
    [
        ("Tesla V100-SXM2-16GB", 16160, "V100 16GB", True),
        ("Tesla V100-PCIE-16GB", 16160, "V100 16GB", True),
        ("Tesla V100-SXM2-32GB", 32510, "V100 16GB", False),
        ("Tesla V100S-PCIE-32GB", 32510, "V100 32GB", False),
        ("NVIDIA H200", 143771, "V100 16GB", False),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100 40GB", True),
        ("NVIDIA A100-SXM4-40GB", 40960, "A10", False),
        ("NVIDIA A10G", 23028, "A10 24GB", False),
        ("NVIDIA H100 80GB HBM3", 81559, "H100 80GB", True),
        ("Tesla T4", 15360, "T4 15GiB", True),  # its size is not in its name
        ("Tesla T4", 15360, "T4 16GB", True),
        ("Tesla T4", 15360, "t4", True),
        ("NVIDIA GeForce RTX 3090", 24576, "RTX 3090", True),
        ("GeForce RTX 3090", 24576, "RTX 3090", True),
        ("NVIDIA GeForce RTX 3090 Ti", 24576, "RTX 3090", False),
        ("NVIDIA GeForce RTX 3090 Ti", 24576, "RTX 3090 Ti", True),
        ("NVIDIA GeForce RTX 4090 D", 24576, "RTX 4090", False),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16384, "RTX 4090", False),
        ("NVIDIA GeForce RTX 4080 SUPER", 16384, "RTX 4080", False),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887, "RTX PRO 6000 Max-Q", True),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, "RTX PRO 6000 Max-Q", False),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887, "RTX PRO 6000", False),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864, "A100", False),
    ],
)
def test_a_gpu_is_the_one_that_a_paper_names_if_each_word_matches(
    name: str, mebibytes: int, published: str, *, is_it: bool
) -> None:
    assert Machine(device="cuda", name=name, memory=mebibytes * MIB).matches(published) is is_it


@pytest.mark.parametrize(
    ("name", "published", "is_it"),
    [
        ("Intel Core i9-10940X @ 3.30GHz", "Core i9-10940X", True),
        ("12th Gen Intel Core i7-12700H", "Core i7-12700H", True),
        ("12th Gen Intel Core i7-12700HX", "Core i7-12700H", False),
        ("AMD EPYC 7763", "Core i9-10940X", False),
    ],
)
def test_a_cpu_is_the_one_that_was_published_with_its_cores(name: str, published: str, *, is_it: bool) -> None:
    cpu = Machine(device="cpu", name=name, memory=16 * GIB, cores=28, threads=14)
    assert cpu.matches(published, cores=14) is is_it
    assert not cpu.matches(published)  # without its cores, what was published is a GPU
    assert not replace(cpu, device="cuda").matches(published, cores=14)


def test_a_cpu_is_never_the_gpu_that_a_paper_names() -> None:
    assert not Machine(device="cpu", name="V100 16GB", memory=16 * GIB, cores=4, threads=4).matches("V100 16GB")


@pytest.mark.parametrize(
    ("here", "label"),
    [
        (LAPTOP, "Some Processor, 4 cores"),
        (replace(LAPTOP, threads=1), "Some Processor, 4 cores, 1 thread"),
        (replace(LAPTOP, threads=2), "Some Processor, 4 cores, 2 threads"),
        (replace(LAPTOP, cores=1, threads=1), "Some Processor, 1 core"),
        (V100, "Tesla V100-SXM2-16GB 16 GiB"),
        (H200, "NVIDIA H200 140 GiB"),
    ],
)
def test_a_machine_is_called_by_its_model_and_what_limits_it(here: Machine, label: str) -> None:
    assert here.label == label


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (LAPTOP, True),
        (replace(LAPTOP, memory=round(15.8 * GIB)), True),  # drivers and boots move it a little
        (replace(LAPTOP, memory=8 * GIB), False),
        (replace(LAPTOP, threads=2), False),
        (replace(LAPTOP, cores=8), False),
        (replace(LAPTOP, name="Another Processor"), False),
        (replace(LAPTOP, device="cuda"), False),
    ],
)
def test_a_throughput_holds_for_the_same_model_cores_and_threads_only(other: Machine, *, same: bool) -> None:
    assert LAPTOP.is_equivalent(other) is same


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"python": "3.11.9"}, True),
        ({"numpy": "1.26.4"}, True),
        ({"os": "Linux 6.1"}, True),
        ({"harness": "9.9.9", "commit": "0123456789ab"}, True),
        ({"python": "3.12.1"}, False),
        ({"torch": "2.14.0"}, False),
        ({"timm": "1.0.30"}, False),
        ({"driver": "550.1"}, False),
        ({"cuda": "12.8"}, False),
        ({"cudnn": "9.1"}, False),
    ],
)
def test_a_throughput_holds_for_the_same_versions_of_what_can_change_it(change: dict[str, str], *, same: bool) -> None:
    assert same_software(VERSIONS, {**VERSIONS, **change}) is same


# This machine.


def test_torchs_version_is_read_without_importing_it() -> None:
    number, cuda = torch_build()
    # Wheels of PyPI leave the build (+cu132) out of their metadata.
    assert number.partition("+")[0] == importlib.metadata.version("torch").partition("+")[0]
    assert cuda is None or [part.isdigit() for part in cuda.split(".")] == [True, True]
    if "+cu" in number:
        assert cuda is not None
        assert number.partition("+cu")[2] == cuda.replace(".", "")
    if "+cpu" in number:
        assert cuda is None


def test_the_cpu_is_described_with_its_cores_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here = describe("cpu")
    assert (here.device, here.threads) == ("cpu", 1)
    assert here.name
    assert here.cores >= 1
    assert here.memory > 0


@pytest.mark.parametrize(("setting", "used"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_omp_num_threads_decides_the_threads_where_it_is_a_number(
    monkeypatch: pytest.MonkeyPatch, setting: str, used: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert torch_threads() == (used or usable_cores())


def control_groups(system: Path, membership: str, **files: str) -> Path:
    """Write a fake /proc and /sys/fs/cgroup; a name's `__` is a folder's `/`."""
    (system / "proc" / "self").mkdir(parents=True)
    (system / "proc" / "self" / "cgroup").write_text(membership, encoding="utf-8")
    for name, text in files.items():
        path = system / "sys/fs/cgroup" / name.replace("__", "/").replace("max", "cpu.max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="ascii")
    return system


@pytest.mark.parametrize(
    ("membership", "files", "quotas"),
    [
        ("0::/\n", {}, []),
        ("0::/\n", {"max": "max 100000"}, []),
        ("0::/\n", {"max": "250000 100000"}, [2.5]),
        ("0::/job/step\n", {"job__max": "400000 100000", "job__step__max": "max 100000"}, [4.0]),
        ("0::/job/step\n", {"job__max": "400000 100000", "job__step__max": "50000 100000"}, [0.5, 4.0]),
        ("0::/what/the/host/calls/it\n", {"max": "300000 100000"}, [3.0]),
        ("4:memory:/job\n2:cpu,cpuacct:/job\n", {"cpu__job__cfs_quota_us": "150000"}, []),
        (
            "4:memory:/job\n2:cpu,cpuacct:/job\n",
            {"cpu__job__cfs_quota_us": "150000", "cpu__job__cfs_period_us": "50000"},
            [3.0],
        ),
        ("2:cpu,cpuacct:/\n", {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, []),
        ("2:cpuset:/job\n", {"cpuset__job__cfs_quota_us": "100000", "cpuset__job__cfs_period_us": "50000"}, []),
        ("0::/\n", {"max": "not a quota"}, []),
    ],
)
def test_the_cpu_quota_of_every_control_group_above_the_process_is_read(
    tmp_path: Path, membership: str, files: dict[str, str], quotas: list[float]
) -> None:
    assert sorted(set(cpu_quotas(control_groups(tmp_path, membership, **files)))) == quotas


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert list(cpu_quotas(tmp_path)) == []


@pytest.mark.parametrize(("quotas", "cores"), [([], 8), ([2.5, 4.0], 2), ([0.5], 1), ([64.0], 8)])
def test_the_smallest_quota_bounds_the_usable_cores(
    monkeypatch: pytest.MonkeyPatch, quotas: list[float], cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpu, "cpu_quotas", lambda: quotas)
    assert usable_cores() == cores


def test_cores_are_counted_in_one_module() -> None:
    package = Path(cpu.__file__).parent.parent
    counting = [path for path in package.rglob("*.py") if re.search(r"sched_getaffinity|cpu_count", path.read_text())]
    assert counting == [Path(cpu.__file__)]


@pytest.mark.parametrize("device", ["gpu", "cuda0", "cuda:", "cuda:x", "CPU", ""])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(HarnessError) as refused:
        describe(device)
    assert str(refused.value) == f"--device {device}: not a device; write auto, cpu, cuda or cuda:N"


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_plain_cuda_is_the_first_gpu(device: str, index: int) -> None:
    assert gpu_index(device) == index


@pytest.mark.skipif(not NO_GPU, reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_a_driver_cuda_is_refused_with_what_to_use(device: str) -> None:
    with pytest.raises(HarnessError) as refused:
        describe(device)
    assert str(refused.value) == f"--device {device}: no NVIDIA driver answers on this machine; use --device cpu"


@pytest.mark.skipif(not NO_GPU, reason="needs a machine without a GPU")
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert describe("auto") == describe("cpu")


# The driver is fake here, because most machines that run the tests have none.


def test_a_gpu_is_described_by_its_index_after_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: visible_gpus(GPUS, "2,0"))
    monkeypatch.setattr(devices, "torch_build", lambda: ("2.15.0+cu132", "13.2"))
    assert describe("cuda:1") == Machine(device="cuda", name="first", memory=16 * GIB)
    assert describe("auto") == Machine(device="cuda", name="third", memory=16 * GIB)


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: visible_gpus(GPUS, "2,0"))
    with pytest.raises(HarnessError) as refused:
        describe("cuda:2")
    assert str(refused.value) == ("--device cuda:2: there is no such GPU; this machine has cuda:0 third, cuda:1 first")


def test_a_gpu_is_refused_if_torch_is_a_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: tuple(GPUS))
    monkeypatch.setattr(devices, "torch_build", lambda: ("2.15.0+cpu", None))
    with pytest.raises(HarnessError) as refused:
        describe("cuda")
    assert str(refused.value) == "--device cuda: torch 2.15.0+cpu is a CPU build; install a CUDA build of torch"
    assert describe("auto").device == "cpu"


# Which GPUs a build of torch can run.

TORCH_2_15 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
TORCH_2_4 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
OLDER = (
    "this build of torch has no code for sm_70; install an older one: builds from torch 2.11 on start at sm_75, "
    "`pip install 'torch<2.11'` gives a build for CUDA 12 that still has Volta (sm_70)"
)


@pytest.mark.parametrize(
    ("architecture", "compiled", "answer"),
    [
        ("sm_70", TORCH_2_4, (True, "runs")),
        ("sm_70", TORCH_2_15, (False, OLDER)),
        ("sm_90", TORCH_2_15, (True, "runs")),
        ("sm_89", ["sm_80", "sm_86"], (True, "runs")),  # from its minor version on
        ("sm_80", ["sm_86"], (False, OLDER.replace("sm_70;", "sm_80;"))),
        ("sm_90", ["sm_80"], (False, "this build of torch has no code for sm_90; install a newer one")),
        ("sm_100", TORCH_2_4, (False, "this build of torch has no code for sm_100; install a newer one")),
        ("sm_120", ["sm_80", "compute_90"], (True, "runs")),  # portable code, compiled when it is loaded
        ("sm_80", ["compute_90"], (False, OLDER.replace("sm_70;", "sm_80;"))),
        ("sm_90", ["sm_90a"], (True, "runs")),
        ("sm_90", [], (False, "this build of torch is for the CPU only; install one for CUDA")),
    ],
)
def test_a_build_runs_on_its_major_version_and_portable_code_on_any_later_gpu(
    architecture: str, compiled: list[str], answer: tuple[bool, str]
) -> None:
    assert can_run(architecture, compiled) == answer


@pytest.mark.skipif(not NO_GPU, reason="needs a machine without a GPU")
def test_doctor_names_the_versions_and_finds_nothing_wrong(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "harness", "doctor"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    number, cuda = torch_build()
    assert shown["device"] == f"cpu: {describe('cpu').label}"
    assert shown["python"] == ".".join(map(str, sys.version_info[:3]))
    assert shown["torch"] == number
    assert shown["timm"] == importlib.metadata.version("timm")
    assert shown["build"] == f"torch {number}, " + (f"CUDA {cuda}" if cuda else "CPU only")
    if cuda:
        assert "sm_" in shown["compiled"]
    assert shown["cuda"] == "no NVIDIA driver answers; throughput is measured on the CPU"
