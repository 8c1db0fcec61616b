"""Models of torchvision, transformers, torch.export, ONNX and of a Python file, wherever a name of timm's may stand."""

import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers import set_fused_attn
from torch import nn

from harness.errors import HarnessError
from harness.jobs import count, hub, models, weights
from harness.jobs.evaluate import evaluate
from harness.jobs.inventory import inspect_inputs
from harness.jobs.speed.workload import Workload
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.run.messages import Inputs
from harness.specs import load
from harness.specs.checked import Scalar
from harness.specs.model_names import file_stem, source_of, split_weights
from tests.commands import start_harness
from tests.own_models import write

RES = 8


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Paths in names are relative to the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(function: Callable[..., object], *arguments: object, **options: object) -> str:
    with pytest.raises(HarnessError) as refused:
        function(*arguments, **options)
    return str(refused.value)


def counted(model: str, res: int = RES) -> dict[str, float]:
    """Return the facts of a count: numbers of parameters and of MACs."""
    return count.count_model(Job.of("count", {"model": model, "res": res}), lambda _: None)[1]


def workload(model: str, **settings: Scalar) -> Workload:
    job = Job.of("throughput", {"model": model, "res": RES, "protocol": "paper", "batch": 2, "repeats": 1, **settings})
    return Workload(job, "cpu")


# Names.


def test_a_tag_is_behind_the_last_dot_where_a_name_may_have_several() -> None:
    assert split_weights("deit_tiny_patch16_224.fb_in1k.v2") == ("deit_tiny_patch16_224", "fb_in1k.v2")
    assert split_weights("file:nets/net.pt2.included") == ("file:nets/net.pt2", "included")
    assert file_stem("hf:google/vit-base.w") == "hf_google_vit-base.w"
    assert [source_of(name) for name in ("resnet18", "onnx:a.onnx", "other:a")] == ["", "onnx", ""]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "torchvision:resnet81",
            f"torchvision {torchvision.__version__} knows no classification model 'resnet81'; did you mean 'resnet18'?",
        ),
        (
            "torchvison:resnet18",
            "'torchvison' of 'torchvison:resnet18' is no source of models; they are torchvision, hf, file and onnx",
        ),
        (
            "file:broken.py:build",
            "'file:broken.py:build' cannot be loaded (ZeroDivisionError: division by zero)",
        ),
        (
            "file:broken.txt",
            "'file:broken.txt' is neither a program of torch.export, PATH.pt2, nor a function, PATH.py:FUNCTION",
        ),
    ],
)
def test_a_name_of_no_model_is_refused_in_a_sentence(folder: Path, model: str, message: str) -> None:
    write(folder, {"broken.py": "1 / 0\n", "broken.txt": ""})
    assert models.unknown_model_message(model) == message


@pytest.mark.parametrize("model", ["file:no.pt2", "file:no.py:build", "onnx:no.onnx"])
def test_a_file_that_is_not_there_is_named_before_anything_is_planned(folder: Path, model: str) -> None:
    path = folder / model.split(":")[1]
    expected = f"'{model}': there is no file {path}; a path is relative to the working folder"
    assert refusal(Job.of, "count", {"model": model, "res": RES}) == expected


@pytest.mark.parametrize(
    ("model", "package", "extra"), [("hf:google/vit", "transformers", "hf"), ("onnx:n", "onnxruntime", "onnx")]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, model: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else 1)
    assert models.unknown_model_message(model) == (
        f"'{model}' needs {package}, which is not installed; run `pip install 'deit-harness[{extra}]'`"
    )


# torchvision.


def test_a_model_of_torchvision_has_the_parameters_and_macs_that_torchvision_publishes() -> None:
    for name, res in (("resnet18", 224), ("vit_b_32", 224)):
        published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
        facts = counted(f"torchvision:{name}", res)
        assert facts["parameters"] == published["num_params"]
        assert round(facts["multiply_adds"] / 1e9, 3) == pytest.approx(published["_ops"], abs=0.01)


@pytest.mark.parametrize("fused", [False, True])
def test_attention_of_torchvision_is_fused_where_that_of_timm_is(*, fused: bool) -> None:
    job = Job.of(
        "throughput", {"model": "torchvision:vit_b_32", "res": 32, "protocol": "paper", "inference_mode": False}
    )
    set_fused_attn(fused)
    step = Workload(job, "cpu").make_step(1)
    with torch.profiler.profile() as ran:
        step()
    names = {event.key for event in ran.key_averages()}
    assert ("aten::_native_multi_head_attention" in names) is fused
    assert ("aten::_scaled_dot_product_attention_math" in names) is not fused


def test_the_version_of_torchvision_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job.of("count", {"model": "torchvision:resnet18", "res": 224})
    assert job.get("code") == f"torchvision {torchvision.__version__.partition('+')[0]}"
    monkeypatch.setattr("harness.machine.own_models.package_version", lambda _: "0.1.0+cpu")
    other = Job.of("count", {"model": "torchvision:resnet18", "res": 224})
    assert (other.get("code"), other.key == job.key) == ("torchvision 0.1.0", False)


def test_weights_of_torchvision_are_found_by_their_tag_and_load(folder: Path) -> None:
    model = torchvision.models.resnet18(num_classes=5)
    save_file(model.state_dict(), folder / "torchvision_resnet18.mine.safetensors")
    file = weights.find_weights("torchvision:resnet18", "mine", folder)
    loaded = weights.load_model("torchvision:resnet18", res=32, classes=5, file=file)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), model.eval()(images))


def test_published_weights_of_torchvision_are_downloaded_once_and_their_hash_is_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder))
    addresses = []

    def download(url: str, path: str, *, progress: bool) -> None:
        addresses.append(url)
        Path(path).write_bytes(bytes(100))

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = folder / "hub/checkpoints/resnet18-f37072fd.pth"
    for _ in range(2):
        message = refusal(weights.find_weights, "torchvision:resnet18", "IMAGENET1K_V1", None)
        assert message.startswith(f"{path}: its SHA-256 begins with ")
        assert message.endswith("but its name says f37072fd; download it again")
    assert addresses == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]


def test_without_a_network_the_file_of_torchvisions_weights_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder))

    def download(*_arguments: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert refusal(weights.find_weights, "torchvision:resnet18", "IMAGENET1K_V1", None) == (
        "the weights torchvision:resnet18.IMAGENET1K_V1 could not be downloaded from "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth (no route to host); provide them with --weights "
        "DIR, as a file resnet18-f37072fd.pth"
    )
    assert weights.unknown_tag_message("torchvision:resnet18", "IMAGENET1K_V9") == (
        f"torchvision {torchvision.__version__} has no weights 'torchvision:resnet18.IMAGENET1K_V9'; did you mean "
        "'torchvision:resnet18.IMAGENET1K_V1'?"
    )


def test_another_preprocessing_than_that_of_the_weights_is_a_warning() -> None:
    settings: dict[str, Scalar] = {"res": 224, "crop": 0.875, "interpolation": "bilinear", "norm": "imagenet"}
    model: dict[str, Scalar] = {"model": "torchvision:resnet18", "weights": "IMAGENET1K_V1"}
    assert models.preprocessing_warnings(Job.of("evaluate", {**model, **settings})) == []
    other = Job.of("evaluate", {**model, **settings, "interpolation": "bicubic", "crop": 0.9})
    (warning,) = models.preprocessing_warnings(other)
    assert warning == (
        "torchvision:resnet18.IMAGENET1K_V1 is for crop = 0.875, interpolation = bilinear, and was evaluated with "
        "crop = 0.9, interpolation = bicubic: set what it is for"
    )


# A Python file.

NET = """
from pathlib import Path
from torch import nn

class Scores(dict):
    logits = property(lambda self: self["scores"])

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, images):
        return Scores(scores=self.head(images.mean(dim=(2, 3))))

def build(num_classes=10):
    return Net(num_classes)

build.weights = {"w": Path(__file__).with_name("net.safetensors")}
build.preprocessing = {"crop": 1.0}
"""


def test_a_function_of_a_python_file_builds_a_model_whose_logits_are_its_scores(folder: Path) -> None:
    write(folder, {"net.py": NET})
    assert counted("file:net.py:build") == {"parameters": 40, "multiply_adds": 30}
    step = workload("file:net.py:build").make_step(2)
    assert step().shape == (2, 10)


def test_the_weights_and_the_preprocessing_that_a_function_names_are_its_own(folder: Path) -> None:
    write(folder, {"net.py": NET})
    head = {"head.weight": torch.eye(4, 3), "head.bias": torch.zeros(4)}
    save_file(head, folder / "net.safetensors")
    file = weights.find_weights("file:net.py:build", "w", None)
    model = weights.load_model("file:net.py:build", res=RES, classes=4, file=file)
    assert model(torch.ones(1, 3, RES, RES)).tolist() == [[1, 1, 1, 0]]
    job = Job.of("evaluate", {"model": "file:net.py:build", "weights": "w", "res": RES, "crop": 0.875})
    assert models.preprocessing_warnings(job) == [
        "file:net.py:build.w is for crop = 1.0, and was evaluated with crop = 0.875: set what it is for"
    ]


def test_weights_that_a_function_names_and_does_not_have_are_a_sentence_and_so_is_a_function_that_fails(
    folder: Path,
) -> None:
    write(folder, {"net.py": NET, "broken.py": "1 / 0\n"})
    settings: dict[str, Scalar] = {"weights": "w", "res": RES, "data": "digits"}
    jobs = [Job.of("evaluate", {"model": model, **settings}) for model in ("file:net.py:build", "file:broken.py:build")]
    path = folder / "net.safetensors"
    assert inspect_inputs(Inputs(), tuple(jobs)).missing == {
        "file:net.py:build.w": f"{path}: is no file, but 'file:net.py:build' names it as its weights 'w'",
        "file:broken.py:build.w": "'file:broken.py:build' cannot be loaded (ZeroDivisionError: division by zero)",
    }


def test_a_changed_file_and_what_it_imports_from_no_released_package_are_other_jobs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    write(folder, {"net.py": f"import layers_of_net, numpy\n{NET}", "layers_of_net.py": "WIDTH = 1\n"})
    keys = [Job.of("count", {"model": "file:net.py:build", "res": RES}).key]
    write(folder, {"layers_of_net.py": "WIDTH = 10\n"})
    keys.append(Job.of("count", {"model": "file:net.py:build", "res": RES}).key)
    write(folder, {"net.py": f"{NET}\n# changed\n"})
    keys.append(Job.of("count", {"model": "file:net.py:build", "res": RES}).key)
    keys.append(Job.of("count", {"model": "file:net.py:Net", "res": RES}).key)
    assert len(set(keys)) == 4


# torch.export.


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    shapes = ({0: torch.export.Dim("images")},)
    exported = torch.export.export(model.eval(), (torch.zeros(2, 3, RES, RES),), dynamic_shapes=shapes)
    torch.export.save(exported, path)
    return path


def test_an_exported_program_is_counted_timed_and_has_its_weights(program: Path) -> None:
    name = f"file:{program}"
    # 3·4 + 4, twice 4, 4·10 + 10; 8·8 pixels × 3·4 and 4·10.
    assert counted(name) == {"parameters": 16 + 8 + 50, "multiply_adds": 768 + 40}
    file = weights.find_weights(name, "included", None)
    loaded = weights.load_model(name, res=RES, classes=10, file=file)
    images = torch.randn(3, 3, RES, RES)
    torch.testing.assert_close(loaded(images), torch.export.load(program).module()(images))
    timed = workload(name)
    timed.check_output()
    assert timed.make_step(5)().shape == (5, 10)
    assert file.origin == "file"


def test_a_program_is_refused_for_what_it_was_not_exported_for(program: Path) -> None:
    name = f"file:{program}"
    file = weights.find_weights(name, "included", None)
    assert refusal(counted, name, 16) == (
        f"'{name}' was exported for images of any × 3 × 8 × 8, not 1 × 3 × 16 × 16; export it for any number of "
        "images, and of this size"
    )
    assert refusal(weights.load_model, name, res=RES, classes=1000, file=file) == (
        f"{program}: is for 10 classes, but the images have 1,000"
    )
    assert refusal(workload, name, step="training") == (
        f"'{name}' computes as it was exported, without training; set protocol = 'paper'"
    )
    assert refusal(weights.find_weights, name, "mine", None) == (
        f"'{name}' has its weights in itself; set weights = 'included'"
    )


class Command:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def test_no_code_that_is_pickled_in_a_program_is_run(program: Path, folder: Path) -> None:
    evil = io.BytesIO()
    torch.save((Command(),), evil)
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile("evil.pt2", "w") as changed:
        pickled = [item for item in whole.infolist() if item.filename.endswith(".pt") and "inputs" in item.filename]
        for item in whole.infolist():
            changed.writestr(item, evil.getvalue() if item in pickled else whole.read(item))
    assert len(pickled) == 1
    assert refusal(models.build_on_meta, "file:evil.pt2", RES) == (
        "evil.pt2: contains more than tensors, code that loading it would run; export it again"
    )
    assert not (folder / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ONNX.


def field(number: int, value: int | str | bytes) -> bytes:
    """Return a field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return bytes([number << 3, value]) if value < 128 else bytes([number << 3, value & 127 | 128, value >> 7])
    content = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2]) + field(0, len(content))[1:] + content


def tensor(name: str, values: np.ndarray) -> bytes:
    return b"".join(field(1, side) for side in values.shape) + field(2, 1) + field(8, name) + field(9, values.tobytes())


def value(name: str, *sides: int | str) -> bytes:
    shape = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in sides)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def node(operator: str, inputs: str, output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs.split()) + field(2, output) + field(4, operator)


WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
BIAS = np.array([0, 1, 2, 50], dtype=np.float32)


@pytest.fixture
def onnx(folder: Path) -> str:
    """A model that is the mean of each channel times a matrix, as onnx.proto has it."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra: pip install 'deit-harness[onnx]'")
    nodes = (
        node("GlobalAveragePool", "images", "means"),
        node("Flatten", "means", "flat"),
        node("Gemm", "flat W b", "scores"),
    )
    graph = b"".join(field(1, each) for each in nodes) + field(2, "net")
    graph += field(5, tensor("W", WEIGHT)) + field(5, tensor("b", BIAS))
    graph += field(11, value("images", "n", 3, RES, RES)) + field(12, value("scores", "n", 4))
    (folder / "net.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return "onnx:net.onnx"


def test_an_onnx_model_is_timed_and_has_its_weights(onnx: str) -> None:
    images = torch.rand(3, 3, RES, RES)
    file = weights.find_weights(onnx, "included", None)
    scores = weights.load_model(onnx, res=RES, classes=4, file=file)(images)
    np.testing.assert_allclose(scores.numpy(), images.mean(dim=(2, 3)).numpy() @ WEIGHT + BIAS, rtol=1e-5)
    timed = workload(onnx)
    timed.check_output()
    assert timed.make_step(5)().shape == (5, 4)
    assert refusal(weights.load_model, onnx, res=RES, classes=10, file=file) == (
        "net.onnx: is for 4 classes, but the images have 10"
    )


def test_an_onnx_model_computes_as_it_was_exported_on_a_cpu(onnx: str) -> None:
    assert refusal(workload, onnx, protocol="modern") == (
        "'onnx:net.onnx' computes as it was exported, without autocast, channels_last, compile; set protocol = 'paper'"
    )
    elsewhere = torch.zeros(1, 3, RES, RES, device="meta")
    assert refusal(models.build_on_meta(onnx, RES), elsewhere) == (
        "'onnx:net.onnx' runs on the CPU, with ONNX Runtime; measure it with --device cpu"
    )
    settings: dict[str, Scalar] = {"res": RES, "data": "digits", "crop": 0.875, "interpolation": "bicubic"}
    lowered = Job.of("evaluate", {"model": onnx, "weights": "included", "precision": "bfloat16", **settings})
    assert refusal(evaluate._prepare, lowered, (), Inputs(), Path("runs")) == (
        "'onnx:net.onnx' computes as it was exported, without autocast; set precision = 'float32'"
    )


def test_weights_in_a_file_next_to_an_onnx_model_are_part_of_it(onnx: str, folder: Path) -> None:
    before = Job.of("throughput", {"model": onnx, "res": RES})
    (folder / "net.onnx.data").write_bytes(struct.pack("f", 1.0))
    assert Job.of("throughput", {"model": onnx, "res": RES}).key != before.key


# transformers.


@pytest.fixture
def vit(folder: Path) -> str:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is an extra: pip install 'deit-harness[hf]'"
    )
    config = transformers.ViTConfig(
        image_size=RES,
        patch_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=10,
    )
    transformers.ViTForImageClassification(config).save_pretrained("vit")
    return "hf:vit"


def test_a_vit_of_transformers_is_counted_timed_and_has_the_weights_of_its_folder(vit: str) -> None:
    # Patches 3·16·8 + 8, class token 8, positions 5·8; a layer 4·(8·8 + 8), norms 2·16, MLP 2·8·16 + 24; norm and head.
    parameters = 392 + 8 + 40 + 288 + 32 + 280 + 16 + 90
    # 4 patches × 384; 5 tokens × (4·64 + 2·128) and twice 5·5·8 of attention; 80 of the head.
    macs = 4 * 384 + 5 * (256 + 256) + 2 * 200 + 80
    assert counted(vit) == {"parameters": parameters, "multiply_adds": macs}
    timed = workload(vit)
    timed.check_output()
    file = weights.find_weights(vit, "included", None)
    model = weights.load_model(vit, res=RES, classes=10, file=file)
    import transformers

    images = torch.randn(2, 3, RES, RES)
    again = transformers.AutoModelForImageClassification.from_pretrained("vit").eval()
    torch.testing.assert_close(model(images), again(images).logits)


def test_the_weights_of_a_repository_are_those_that_transformers_loads(
    vit: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "download", lambda _repository, files, **_options: folder / "vit" / files[0])
    file = weights.find_weights("hf:somebody/vit", "included", None)
    assert (file.origin, file.included) == ("hub", True)
    model = weights.load_model("hf:somebody/vit", res=RES, classes=10, file=file)
    own = weights.load_model(vit, res=RES, classes=10, file=weights.find_weights(vit, "included", None))
    images = torch.randn(1, 3, RES, RES)
    torch.testing.assert_close(model(images), own(images))


def test_another_config_or_version_of_transformers_is_another_job(vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job.of("count", {"model": vit, "res": RES})
    config = Path("vit/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 2}))
    changed = Job.of("count", {"model": vit, "res": RES})
    monkeypatch.setattr("harness.machine.own_models.package_version", lambda _: "1.0")
    other = Job.of("count", {"model": vit, "res": RES})
    assert len({job.key, changed.key, other.key}) == 3


def test_a_repository_of_a_hub_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="transformers is an extra: pip install 'deit-harness[hf]'")
    import huggingface_hub

    def no_answer(*_arguments: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_answer)
    assert models.unknown_model_message("hf:nobody/no-model") == (
        "config.json of 'hf:nobody/no-model' could not be downloaded from the hub (no route to host); name a folder "
        "that has it, as hf:FOLDER"
    )


# Tables.

SPEC = """
[table]
title = "Mine"
[source.paper]
kind = "paper"
[column.params]
label = "params"
job = "count"
metric = "params"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
set = { data = "digits" }
[column.trained]
label = "trained"
job = "train"
metric = "top1"
set = { recipe = "deit-b", data = "digits" }
[row.net]
label = "Net"
set = { model = "MODEL", weights = "included", res = 8 }
"""


def test_what_cannot_be_counted_or_trained_says_so_in_its_cell(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(b"")
    (folder / "mine.toml").write_text(SPEC.replace("MODEL", "onnx:net.onnx"), encoding="utf-8")
    plan = make_plan([load(folder / "mine.toml")])
    assert {cell.cell.column.key: cell.blocked for cell in plan.cells} == {
        "params": (
            "ONNX Runtime counts neither parameters nor MACs of 'onnx:net.onnx'; export it with torch.export as well"
        ),
        "top1": "",
        "trained": "train jobs take models of timm and of entry points in harness.models, not 'onnx:net.onnx'",
    }


def test_a_tag_with_a_dot_is_refused_where_it_would_be_taken_for_a_part_of_the_name(folder: Path) -> None:
    text = SPEC.replace("MODEL", "torchvision:resnet18").replace('"included"', '"v1.5"')
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    (cell, *_) = [cell for cell in make_plan([load(folder / "mine.toml")]).cells if cell.cell.column.key == "top1"]
    assert cell.blocked == (
        "the tag 'v1.5' of weights of 'torchvision:resnet18' has a dot, as names of files have; rename it"
    )


def test_a_table_of_a_program_is_measured_and_known_the_next_time(program: Path, folder: Path) -> None:
    (folder / "net.pt2").write_bytes(program.read_bytes())
    (folder / "mine.toml").write_text(SPEC.replace("MODEL", "file:net.pt2"), encoding="utf-8")
    root = str(Path(__file__).parent.parent)
    columns = ("--columns", "params,top1", "--device", "cpu")
    for done in ("2 measured, 0 known already", "0 measured, 2 known already"):
        ran = start_harness(folder, "reproduce", "mine.toml", *columns, PYTHONPATH=root)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[-1] == f"jobs: {done}.  runs/"
