"""Real models are counted and timed, and what happens when memory runs out."""

import csv
import math
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import use_fused_attn
from torch import nn

from harness.errors import JobError
from harness.jobs import count, models
from harness.jobs.data.preprocess import normalise
from harness.jobs.fresh import run_in_fresh_process
from harness.jobs.precision import hardware_warnings
from harness.jobs.speed import throughput
from harness.jobs.speed.allocator import ResourceUsage, retain_freed_memory
from harness.jobs.speed.device import (
    Cpu,
    Cuda,
    clock_warnings,
    memory_limit_warning,
    page_fault_warnings,
    thread_warnings,
)
from harness.jobs.speed.workload import PROTOCOLS, Workload, set_flags
from harness.jobs.too_large import too_large
from harness.jobs.worker import ENTRY_FUNCTIONS
from harness.machine import usable_cores
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.run.messages import Progress
from harness.specs import Catalog
from harness.specs.kinds import KINDS, parse_memory, throughput_settings

ROOT = Path(__file__).parent.parent
NO_RETENTION = "this machine's malloc cannot retain freed memory"

# What inductor's compiling processes raise, which is no RuntimeError; older versions of torch raise one instead.
_POOL = import_module("torch._inductor.compile_worker.subproc_pool")
Compiling: type[Exception] = getattr(_POOL, "SubprocException", RuntimeError)

# Worked out by hand from the models' definitions, or published by their authors (see each line).
PARAMETERS = {
    # ViT: patch embedding 3*16*16*d + d, class token d, positions 197*d, 12 blocks of 12*d*d + 13*d, norm 2*d,
    # head 1000*d + 1000.
    ("deit_tiny_patch16_224", 224): 5_717_416,
    ("deit_small_patch16_224", 224): 22_050_664,
    ("deit_base_patch16_224", 224): 86_567_656,
    # 100 + 1 positions instead of 197: (197 - 101) * 768 fewer.
    ("deit_base_patch16_224", 160): 86_567_656 - 96 * 768,
    # 400 + 1 positions: (401 - 197) * 768 more.
    ("deit_base_patch16_224", 320): 86_567_656 + 204 * 768,
    ("deit_base_distilled_patch16_384", 384): 87_630_032,
    ("resnet50", 224): 25_557_032,
    ("regnety_160", 224): 83_590_140,
    ("tf_efficientnet_b8", 800): 87_413_142,
}


def silent(_progress: Progress) -> None:
    pass


def count_metrics(model: str, res: int) -> dict[str, float | str]:
    metrics, _, _ = count.count_model(Job.of("count", {"model": model, "res": res}), silent)
    return {name: measurement.value for name, measurement in metrics.items()}


@pytest.mark.parametrize(("model", "res"), PARAMETERS, ids=str)
def test_parameters_are_those_of_the_definition(model: str, res: int) -> None:
    assert count_metrics(model, res)["params"] == PARAMETERS[model, res] / 1e6


def published_counts() -> list[tuple[str, int, int]]:
    """Read name, size and parameters of every model that timm publishes for a row, at the row's size."""
    with (Path(__file__).parent / "published" / "timm_reference.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["params"]]
    return sorted({(r["timm_model"].partition(".")[0], int(r["img_size"]), int(r["params"])) for r in rows})


@pytest.mark.parametrize(("model", "res", "parameters"), published_counts(), ids=str)
def test_parameters_of_every_row_are_those_that_timm_publishes(model: str, res: int, parameters: int) -> None:
    metrics = count_metrics(model, res)
    assert metrics["params"] == parameters / 1e6
    assert metrics["res"] == res


def test_macs_of_a_vit_are_those_of_its_matrix_products() -> None:
    d, tokens, layers = 192, 197, 12
    patches = 196 * 3 * 16 * 16 * d
    # Per block: query, key and value 3*d*d, projection d*d, MLP 8*d*d for each token, and two products of attention.
    blocks = layers * (12 * d * d * tokens + 2 * tokens * tokens * d)
    head = d * 1000
    assert count_metrics("deit_tiny_patch16_224", 224)["macs"] == pytest.approx(
        (patches + blocks + head) / 1e9, rel=1e-12
    )


def test_macs_of_a_model_whose_class_token_comes_late_are_those_of_its_matrix_products() -> None:
    # CaiT-XXS24: 24 blocks without a class token, whose attention mixes its heads before and after the softmax, then 2
    # in which the class token alone asks.
    d, heads, patches = 192, 4, 196
    blocks = 24 * (12 * d * d * patches + 2 * patches * patches * d + 2 * patches * patches * heads * heads)
    # Query, projection and MLP of one token, key and value of all, two products of one row of attention.
    last = 2 * (10 * d * d + 2 * d * d * (patches + 1) + 2 * d * (patches + 1))
    macs = patches * 3 * 16 * 16 * d + blocks + last + 1000 * d
    assert count_metrics("cait_xxs24_224", 224)["macs"] == pytest.approx(macs / 1e9, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "res", "gmacs"),
    # What timm's own benchmark files list for these models (pt113 files, which still count attention, and for the last
    # four pt240).
    [
        ("resnet18", 224, 1.82),
        ("resnet50", 224, 4.11),
        ("deit_base_patch16_224", 224, 17.58),
        ("tf_efficientnet_b0", 224, 0.4),
        ("pit_ti_224", 224, 0.7),
        ("vit_base_patch16_siglip_224", 224, 17.73),
        ("samvit_base_patch16", 1024, 486.43),
        ("hieradet_small", 256, 8.51),
    ],
)
def test_macs_agree_with_those_that_timm_publishes(model: str, res: int, gmacs: float) -> None:
    # timm's count includes norms and activations: up to 4 % for the smallest model.
    assert count_metrics(model, res)["macs"] == pytest.approx(gmacs, rel=0.04)


# Words of timm's for the small ones among the models of a family.
SMALL = ("atto", "femto", "pico", "nano", "xxs", "tiny", "_ti_", "mini", "small", "_s_", "_s", "_b0", "_050", "18")


@pytest.mark.skipif(os.environ.get("TOX_ENV_NAME") == "oldest", reason="a minute: once, with newest versions, will do")
def test_a_model_of_every_family_of_timms_is_counted() -> None:
    failed = {}
    for family in timm.list_modules():
        names = timm.list_models(module=family) or ["resnet18"]  # of which only deprecated names may be left
        name = next((name for word in SMALL for name in names if word in name), names[0])
        try:
            config = timm.get_pretrained_cfg(name)
            assert config is not None
            metrics = {key: float(value) for key, value in count_metrics(name, config.input_size[-1]).items()}
        except JobError as error:
            failed[name] = str(error)
        else:
            assert min(metrics["params"], metrics["macs"], metrics["activations"]) > 0, name
    assert failed == {}


def test_the_architecture_of_table_1_is_read_off_the_models() -> None:
    metrics = count_metrics("deit_small_patch16_224", 224)
    assert [metrics[name] for name in ("embed_dim", "heads", "layers", "tokens")] == [384, 6, 12, 197]
    assert count_metrics("deit_base_distilled_patch16_384", 384)["tokens"] == 24 * 24 + 2
    assert "heads" not in count_metrics("resnet18", 224)


def test_the_traffic_of_a_small_model_is_the_sum_of_its_layers() -> None:
    # An image of 3 x 8 x 8 floats: the convolution reads 192 and writes 4 * 36 numbers, the ReLU reads and writes them,
    # the linear layer reads 144 and writes 10.  Flattening is a view.
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).to("meta")
    images = torch.empty(2, 3, 8, 8, device="meta")
    assert count.activation_bytes_per_image(model, images) == 4 * (192 + 144 + 144 + 144 + 144 + 10)


def test_an_unknown_model_is_named_with_the_nearest() -> None:
    with pytest.raises(JobError) as refused:
        count_metrics("deit_tinny_patch16_224", 224)
    assert str(refused.value) == (
        f"timm {timm.__version__} knows no model 'deit_tinny_patch16_224'; did you mean 'deit_tiny_patch16_224'?"
    )


def test_a_model_that_fails_at_a_size_is_said_to_and_what_its_own_size_is() -> None:
    with pytest.raises(JobError) as failed:
        count_metrics("crossvit_15_240", 224)  # its second branch sees 224 · 224 / 240 pixels
    assert str(failed.value).startswith(
        "'crossvit_15_240' fails on an image of 224 pixels (timm's size for it is 240): "
    )


def test_a_size_that_the_patches_do_not_divide_is_refused_in_a_sentence() -> None:
    with pytest.raises(JobError) as refused:
        count_metrics("deit_tiny_patch16_224", 50)
    assert str(refused.value) == (
        "'deit_tiny_patch16_224' has patches of 16 pixels, which do not divide 50; choose a multiple"
    )


def test_every_model_of_the_shipped_tables_can_be_built_at_its_size() -> None:
    jobs = {job for job in make_plan(Catalog().find(["all"])).jobs if job.exclusive}
    assert len(jobs) >= 30
    for model, res in sorted({(str(job["model"]), int(job["res"])) for job in jobs}):
        built = models.build_on_meta(model, res)
        output = built(torch.empty(1, 3, res, res, device="meta"))
        assert tuple(output.shape) == (1, 1000), (model, res)


@pytest.mark.parametrize(
    "model", ["resnet18", "deit_tiny_distilled_patch16_224", "tf_efficientnet_b0", "swin_tiny_patch4_window7_224"]
)
def test_a_model_with_random_weights_is_timms_model_with_finite_scores(model: str) -> None:
    built = models.build_with_random_weights(model, 224)
    theirs = timm.create_model(model)
    assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    with torch.inference_mode():
        scores = built(torch.randn(2, 3, 224, 224))
    assert bool(torch.isfinite(scores).all())
    assert scores.std() > 0
    assert not built.training


def throughput_job(**settings: str | float) -> Job:
    defaults: dict[str, str | float] = {"model": "resnet18", "res": 64, "protocol": "paper", "repeats": 5, "batch": 2}
    return Job.of("throughput", {**defaults, **settings})


def test_a_throughput_is_batch_times_runs_over_their_total_time() -> None:
    metrics, facts, _ = throughput.measure_throughput(throughput_job(), silent, device="cpu", threads=1)
    measured = metrics["throughput"]
    assert len(measured.samples) == 5
    assert measured.value == pytest.approx(2 * 5 / math.fsum(measured.samples))
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low < float(measured.value) < measured.high
    assert facts["batch"] == 2
    assert facts["threads"] == 1


def test_every_flag_of_the_paper_protocol_is_set_and_recorded() -> None:
    _, facts, _ = throughput.measure_throughput(throughput_job(), silent, device="cpu", threads=1)
    assert facts["flags"] == {
        "autocast": None,
        "tf32_matmul": False,
        "tf32_cudnn": False,
        "fused_attention": False,
        "cudnn_benchmark": False,
        "channels_last": False,
        "compile": None,
    }
    assert facts["not_compiled"] is None


def script_job(**settings: str | float) -> Job:
    given = {"model": "resnet18", "res": 32, "protocol": "timm", "batch": 2, "repeats": 3, **settings}
    return Job.of("throughput", throughput_settings(given, {}))


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, {"autocast": None, "dtype": "float32", "channels_last": False, "training": False}),
        ({"precision": "bfloat16"}, {"autocast": "bfloat16", "dtype": "float32"}),
        (
            {"precision": "bfloat16", "autocast": False, "channels_last": True, "fused_attention": False},
            {"autocast": None, "dtype": "bfloat16", "channels_last": True, "fused_attention": False},
        ),
        ({"step": "training"}, {"training": True, "autocast": None}),
    ],
)
def test_the_timm_protocol_measures_with_the_settings_of_the_job_and_warms_up_ten_times(
    settings: dict[str, str | float], flags: dict[str, object]
) -> None:
    metrics, facts, _ = throughput.measure_throughput(script_job(**settings), silent, device="cpu", threads=1)
    always = {"tf32_matmul": True, "tf32_cudnn": True, "cudnn_benchmark": True, "as_script": True}
    assert facts["flags"].items() >= {**always, **flags}.items()
    assert len(facts["warm_up"]) == 10
    assert len(metrics["throughput"].samples) == 3
    assert facts["freed_memory_kept"] is False  # malloc is as the system has it


def test_a_step_of_training_changes_the_weights_and_a_step_of_inference_does_not() -> None:
    for step, changes in (("training", True), ("inference", False)):
        workload = Workload(script_job(step=step), "cpu")
        before = workload._model.state_dict()["conv1.weight"].clone()
        workload.make_step(2)()
        assert bool((workload._model.state_dict()["conv1.weight"] != before).any()) is changes


def test_the_timm_protocol_casts_weights_and_images_where_it_does_not_autocast() -> None:
    workload = Workload(script_job(precision="bfloat16", autocast=False), "cpu")
    assert {parameter.dtype for parameter in workload._model.parameters()} == {torch.bfloat16}
    assert workload.make_step(2)().dtype is torch.bfloat16


def test_the_flags_are_really_set() -> None:
    def flags() -> list[bool]:
        cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
        return [cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, bool(use_fused_attn())]

    set_flags(PROTOCOLS["modern"])
    assert flags() == [True, True, True, True]
    set_flags(PROTOCOLS["paper"])
    assert flags() == [False, False, False, False]


def compile_to(error: Exception) -> Callable[..., Callable[[torch.Tensor], torch.Tensor]]:
    def compiled(_: torch.Tensor) -> torch.Tensor:
        raise error

    return lambda *_, **__: compiled


def modern_workload() -> Workload:
    set_flags(PROTOCOLS["modern"])
    return Workload(throughput_job(protocol="modern"), "cpu")


def test_a_model_that_does_not_compile_runs_in_eager_mode_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", compile_to(ValueError("no such operator")))
    step, reason = modern_workload().make_compiled_step(2)
    assert reason == "not compiled: ValueError: no such operator"
    assert tuple(step().shape) == (2, 1000)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        Compiling("RuntimeError: CUDA driver error: out of memory"),
        RuntimeError("Expected canUse32BitIndexMath(input) to be true, but got false."),
    ],
    ids=str,
)
def test_a_compiled_model_for_which_a_batch_is_too_large_is_not_uncompiled(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(torch, "compile", compile_to(error))
    with pytest.raises(type(error)):
        modern_workload().make_compiled_step(2)


@pytest.mark.parametrize(
    ("protocol", "model", "res", "most"),
    [
        # Per image the largest tensor is the hidden layer of the MLP: 197 tokens by 4 × 192.
        ("paper", "deit_tiny_patch16_224", 224, (2**31 - 2) // (197 * 4 * 192)),
        ("modern", "deit_tiny_patch16_224", 224, (2**31 - 2) // (197 * 4 * 192)),
        # The first convolution: 64 channels of 32 by 32.
        ("paper", "resnet18", 64, (2**31 - 2) // (64 * 32 * 32)),
        # Of 16 by 16, which would be 131,071 images.
        ("paper", "resnet18", 32, 65_535),
    ],
)
def test_no_batch_has_more_elements_than_32_bits_count_nor_more_images_than_16(
    protocol: str, model: str, res: int, most: int
) -> None:
    set_flags(PROTOCOLS[protocol])
    assert Workload(throughput_job(protocol=protocol, model=model, res=res), "cpu").most_images() == most


def test_the_batch_of_a_cpu_is_the_saturation_batch_size() -> None:
    metrics, facts, _ = throughput.measure_throughput(throughput_job(batch="auto"), silent, device="cpu", threads=1)
    tried = [probe["batch"] for probe in facts["probes"]]
    assert tried == [2**n for n in range(len(tried))]
    assert metrics["batch"].value == facts["batch"]
    assert facts["batch"] in tried


def test_the_largest_batch_under_a_memory_limit_is_searched_in_one_process_and_confirmed_in_another() -> None:
    phases: list[str] = []
    job = throughput_job(batch="largest", memory="60MiB", repeats=2, res=128)
    metrics, facts, _ = throughput.measure_throughput(job, lambda p: phases.append(p.phase), device="cpu", threads=1)
    batch = metrics["batch"].value
    assert facts["memory_cap"] == 60 * 2**20
    assert not facts["freed_memory_kept"]
    outcomes = {probe["batch"]: probe["outcome"] for probe in facts["probes"]}
    assert outcomes[batch + facts["steps_down"]] == "fits"
    assert outcomes[batch + facts["steps_down"] + 1] == "out of memory"


def test_a_memory_limit_that_one_image_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(JobError) as refused:
        throughput.measure_throughput(
            throughput_job(batch="largest", memory="1MiB", res=512), silent, device="cpu", threads=1
        )
    assert str(refused.value) == "out of memory at batch 1 under 1MiB; give more with --memory"


def test_an_error_that_is_not_out_of_memory_stops_the_job_with_its_own_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Workload, "make_step", broken)
    with pytest.raises(JobError, match="RuntimeError: CUDA error: an illegal memory access was encountered"):
        throughput.measure_throughput(throughput_job(batch="largest", memory="1GiB"), silent, device="cpu", threads=1)


def test_a_model_whose_output_is_not_finite_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, res: int) -> torch.nn.Module:
        model: Any = timm.create_model(name).eval()
        torch.nn.init.constant_(model.fc.bias, math.nan)
        return model  # type: ignore[no-any-return]

    monkeypatch.setattr(models, "build_with_random_weights", broken)
    with pytest.raises(JobError) as refused:
        throughput.measure_throughput(throughput_job(), silent, device="cpu", threads=1)
    assert str(refused.value) == "'resnet18' returns numbers that are not finite for a fixed image"


INDICES, ALGORITHM = "too many elements for 32-bit indices", "out of memory for any algorithm of cuDNN"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA", "out of memory"),
        ("CUDA driver error: out of memory", "out of memory"),
        ("Triton Error [CUDA]: out of memory", "out of memory"),
        ("NCCL Error 1: unhandled cuda error. Cuda failure 2 'out of memory'", "out of memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out of memory"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out of memory"),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "out of memory"),
        ("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED", "out of memory"),
        ("cuFFT error: CUFFT_ALLOC_FAILED", "out of memory"),
        ("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1090", "out of memory"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes", "out of memory"),
        ("std::bad_alloc", "out of memory"),
        (
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            "out of memory for cuBLAS to start",
        ),
        ("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&h)`", "out of memory for cuBLAS to start"),
        ("GET was unable to find an engine to execute this computation", ALGORITHM),
        ("FIND was unable to find an engine to execute this computation", ALGORITHM),
        ("Unable to find a valid cuDNN algorithm to run convolution", ALGORITHM),
        ("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false.", INDICES),
        ("input tensor must fit into 32-bit index math", INDICES),
        ("iter.can_use_32bit_indexing() INTERNAL ASSERT FAILED", INDICES),
        ("numel needs to be smaller than int32_t max; otherwise, please use packed_accessor64", INDICES),
        ("value cannot be converted to type int without overflow", INDICES),
        ("CUDA error: invalid configuration argument", "too many blocks for a kernel"),
        ("CUDA error: an illegal memory access was encountered", ""),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", ""),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle, stream)`", ""),
        ("CUDA error: no kernel image is available for execution on the device", ""),
        ("out of resource: shared memory, Required: 131072, Hardware limit: 101376", ""),
        ("mat1 and mat2 shapes cannot be multiplied", ""),
    ],
)
def test_the_texts_that_say_that_a_batch_is_too_large_are_known(text: str, reason: str) -> None:
    assert too_large(RuntimeError(text)) == reason


def test_only_errors_of_torch_count_and_those_behind_them() -> None:
    memory = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert too_large(memory) == too_large(MemoryError()) == "out of memory"
    assert too_large(ValueError("CUDA out of memory")) == ""
    wrapped = RuntimeError("backend='inductor' raised:")
    wrapped.__cause__ = memory
    assert too_large(wrapped) == "out of memory"
    failed: Any = RuntimeError("backend='inductor' raised:")
    failed.inner_exception = memory  # as `BackendCompilerFailed` has it
    assert too_large(failed) == "out of memory"
    assert too_large(Compiling("RuntimeError: Triton Error [CUDA]: out of memory")) == "out of memory"
    circular = RuntimeError("first")
    circular.__cause__ = circular
    assert too_large(circular) == ""


def test_torchs_message_for_out_of_memory_on_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50)
    assert too_large(refused.value) == "out of memory"


NO_BFLOAT16 = (
    "sm_70 has no bfloat16 arithmetic, which begins with sm_80: each number is converted and torch.compile leaves the "
    "model as it is, so the speed says nothing of bfloat16; measure in float16 here"
)


@pytest.mark.parametrize(
    ("lowered", "architecture", "said"),
    [
        ("bfloat16", "sm_80", ""),
        ("bfloat16", "sm_100", ""),
        ("float32", "sm_60", ""),
        (
            "bfloat16",
            "sm_70",
            NO_BFLOAT16,
        ),
        ("tf32", "sm_75", "sm_75 has no TF32, which begins with sm_80: computed in float32"),
        ("float16", "sm_61", "sm_61 has no tensor cores: float16 is no faster than float32, or slower"),
        (
            "float16",
            "sm_75",
            "sm_75 has no flash attention, which begins with sm_80: float16 takes the memory-efficient kernel instead",
        ),
    ],
)
def test_what_a_gpu_lacks_for_a_precision_is_said(lowered: str, architecture: str, said: str) -> None:
    assert hardware_warnings(lowered, architecture, fused=True, compiled=True) == ([said] if said else [])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_normalised_images_keep_the_memory_format_of_the_pixels(order: torch.memory_format) -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=order)
    images = normalise(pixels, "imagenet")
    assert images.is_contiguous(memory_format=order)
    # By hand: the first channel's mean is 0.485, its deviation 0.229.
    torch.testing.assert_close(images[:, 0], (pixels[:, 0] / 255 - 0.485) / 0.229)


def test_normalising_needs_no_upload_but_for_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    with torch.inference_mode():
        normalise(pixels, "inception")
    monkeypatch.setattr(torch, "tensor", None)
    assert not normalise(pixels, "inception").is_inference()


def test_clocks_that_differ_by_more_than_two_percent_raise_a_warning() -> None:
    assert clock_warnings(1.0, 1.019) == []
    assert clock_warnings(1.0, 1.03) == [
        "CUDA events say 1.000 s, the wall clock 1.030 s: the host may not keep the GPU busy"
    ]


@pytest.mark.parametrize(
    ("threads", "available", "used", "warnings"),
    [
        (2, 2, 1.9, []),
        (1, 4, 0.9, ["torch was given 1 of 4 cores: set OMP_NUM_THREADS=4 for all of them"]),
        (8, 2, 1.9, ["torch was given 8 threads for 2 cores, which then wait for each other"]),
        (4, 4, 1.2, ["only 1.2 of 4 cores were busy: the model is too small for them"]),
    ],
)
def test_threads_that_are_not_the_cores_raise_a_warning(
    threads: int, available: int, used: float, warnings: list[str]
) -> None:
    assert thread_warnings(threads, available, used) == warnings


def test_an_emulated_memory_raises_a_warning_of_what_it_cannot_show() -> None:
    assert memory_limit_warning(16 * 2**30, 139 * 2**30) == (
        "a memory of 16.0 GiB is emulated on a GPU of 139 GiB: the batch is one that fits, "
        "the throughput is this GPU's own"
    )


def test_runs_on_the_cpu_are_timed_one_by_one() -> None:
    calls: list[int] = []
    reported: list[int] = []
    timings = Cpu(1).time_steps(lambda: calls.append(1), 7, reported.append)
    assert len(calls) == len(timings.seconds) == 7
    assert reported == [1, 2, 3, 4, 5, 6, 7]
    assert sum(timings.seconds) <= timings.wall


def test_as_a_script_the_harness_waits_for_a_gpu_after_each_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(len(calls)))
    device = Cuda.__new__(Cuda)  # as it is made needs a GPU
    device._monitor, device._synchronizes = None, True
    timings = device.time_steps(lambda: calls.append(1), 3, lambda _: None)
    assert waits == [0, *(0, 1), *(1, 2), *(2, 3)]
    assert len(timings.seconds) == 3


def page_faults_of_a_step(*, retained: bool) -> int:
    """Page faults of a step of 40 MiB; glibc releases at once what is larger than 32 MiB."""
    torch.set_num_threads(1)  # a forked process has none of the threads that an earlier test began
    if retained and not retain_freed_memory():
        return -1
    step: Callable[[], object] = lambda: torch.ones(10 * 2**20)  # noqa: E731
    for _ in range(20):  # until the heap has room for it at every alignment
        step()
    before = ResourceUsage.now()
    for _ in range(5):
        step()
    return ResourceUsage.now().since(before).page_faults // 5


def test_what_a_step_frees_is_retained() -> None:
    # Each in a Python of its own: what is forked from this one has the heap that earlier tests left.
    program = "from tests.test_jobs import page_faults_of_a_step as faults; print(faults(retained={}))"

    def faults(*, retained: bool) -> int:
        command = [sys.executable, "-c", program.format(retained)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)

    if (kept := faults(retained=True)) < 0:
        pytest.skip(NO_RETENTION)
    assert kept < 5
    # 40 MiB are 10,240 pages of 4 KiB, and at least 20 where the kernel gives huge ones of 2 MiB.
    assert faults(retained=False) >= 20


def fits_after_smaller_ones(limit: int, size: int) -> bool:
    """Whether a block fits under a limit after smaller ones, each freed before the next except for what it left."""
    device = Cpu(1)
    device.set_memory_limit(limit)
    left = []
    try:
        for tenths in range(1, 11):
            block = torch.empty(size * tenths // 10, dtype=torch.uint8)
            left.append(torch.empty(2**14, dtype=torch.uint8))  # sits above the block where the heap is retained
            del block
    except RuntimeError as error:
        return not device.too_large(error)
    return True


def test_how_much_fits_under_a_limit_does_not_depend_on_what_was_freed_before() -> None:
    # In a Python of its own: what is forked from this one has the room that earlier tests freed.
    program = "from tests.test_jobs import fits_after_smaller_ones as fits; print(fits({0}, {1}), fits({0}, {2}))"
    limit = 100 * 2**20
    code = program.format(limit, 9 * limit // 10, limit + 2**20)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "True False\n"


REMEDY = "preload an allocator that retains it, such as jemalloc"


@pytest.mark.parametrize(
    ("system_seconds", "limited", "remedies"),
    [(0.1, False, []), (0.5, False, [REMEDY]), (0.5, True, ["measure without --memory"])],
)
def test_iterations_that_page_in_memory_raise_a_warning(
    system_seconds: float, *, limited: bool, remedies: list[str]
) -> None:
    faults = 10 * 10 * 2**20 // resource.getpagesize()
    usage = ResourceUsage(page_faults=faults, cpu_seconds=2.0, system_seconds=system_seconds)
    assert page_fault_warnings(usage, 10, limited=limited) == [
        "the kernel took 25 % of the CPU time, because freed memory is not retained and each iteration pages in "
        f"10 MiB: {remedy}"
        for remedy in remedies
    ]


def test_a_throughput_comes_with_page_faults_and_the_reference_workload() -> None:
    _, facts, warnings = throughput.measure_throughput(throughput_job(), silent, device="cpu", threads=1)
    before, after = facts["yardstick"]
    assert 0 < before < 60
    assert 0 < after < 60
    if not facts["freed_memory_kept"]:
        pytest.skip(NO_RETENTION)
    assert facts["system_share"] < 0.2
    assert not any("pages in" in warning for warning in warnings)


def test_the_reference_workload_does_not_use_torch_so_that_a_slower_torch_is_no_slower_machine() -> None:
    program = "import harness.jobs.speed.reference_workload, sys; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "False\n"


def test_a_busy_machine_takes_longer_for_the_reference_workload() -> None:
    def spin() -> None:
        while True:
            pass

    count = usable_cores()
    device = Cpu(count)
    idle = min(device.time_reference_workload() for _ in range(3))
    neighbours = [multiprocessing.get_context("fork").Process(target=spin, daemon=True) for _ in range(8 * count)]
    try:
        for neighbour in neighbours:
            neighbour.start()
        busy = device.time_reference_workload()
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.join()
    assert busy > 1.3 * idle


def test_a_busy_neighbour_is_noticed() -> None:
    def spin() -> None:
        while True:
            pass

    neighbour = multiprocessing.get_context("fork").Process(target=spin, daemon=True)
    neighbour.start()
    try:
        matrix = torch.zeros(300, 300)
        step: Callable[[], object] = lambda: [matrix @ matrix for _ in range(200)]  # noqa: E731
        timings = Cpu(1).time_steps(step, 10, lambda _: None)
    finally:
        neighbour.kill()
        neighbour.join()
    if "cores_used_by_others" not in timings.facts:
        pytest.skip("this system does not report its CPU time")
    assert any("other processes used" in warning for warning in timings.interference)


def test_a_fresh_process_returns_its_value_or_raises_its_error() -> None:
    assert run_in_fresh_process(divmod, 17, 5) == (3, 2)
    with pytest.raises(JobError, match="ZeroDivisionError"):
        run_in_fresh_process(divmod, 1, 0)


def test_a_fresh_process_that_dies_raises_an_error_with_its_signal() -> None:
    with pytest.raises(JobError) as died:
        run_in_fresh_process(os.abort)
    assert str(died.value) == "the process was ended by SIGABRT"


@pytest.mark.parametrize(
    ("text", "amount"),
    [("16GiB", 16 * 2**30), ("16GB", 16 * 10**9), ("1.5 GiB", 3 * 2**29), ("512mib", 2**29), ("all", None)],
)
def test_amounts_of_memory_are_read(text: str, amount: int | None) -> None:
    assert parse_memory(text) == amount


def test_every_kind_of_job_has_an_entry_function() -> None:
    assert {*ENTRY_FUNCTIONS, "evaluate"} == set(KINDS)
