# mypy: ignore-errors
"""Plays CUDA on a CPU: with this folder on PYTHONPATH and FAKE_CUDA set, `torch.cuda` answers in every process.

Each device of CUDA becomes the CPU.  What CUDA would not forgive is an error here as well: a device that is hidden,
a process that was forked after CUDA was initialised, events that are read before they happened, tensors of more
elements than 32-bit indices reach, more memory than there is.  FAKE_LOG gets a line for each context, by the card's
UUID, and for whatever else tests ask about.  Numbers measured here mean nothing.

FAKE_IMAGE_MIB is the memory of an image; FAKE_OOM the error where memory ends; FAKE_ORDER the cards as CUDA orders them
by speed, as b,a; others as in nvml.c.
"""

import importlib.util
import os
import sys
import time

CONTEXT = 520 << 20
TOTAL = 85_029_158_912
INDICES = 2**31


def say(*what):
    if os.environ.get("FAKE_LOG"):
        with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as file:
            print(os.getpid(), *what, file=file)


def uuids():
    """The cards as CUDA counts them: those that answer, in its order, and of those the visible."""
    odd = os.environ.get("FAKE_DENY", "") + os.environ.get("FAKE_LOST", "")
    letters = ["abcdefgh"[n] for n in range(int(os.environ.get("FAKE_GPUS", "1"))) if f",{n}," not in odd]
    if os.environ.get("CUDA_DEVICE_ORDER") == "FASTEST_FIRST" and os.environ.get("FAKE_ORDER"):
        letters = os.environ["FAKE_ORDER"].split(",")
    every = [f"GPU-{letter}0000000-0000-0000-0000-000000000000" for letter in letters]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return every
    words = setting.split(",")
    return [
        every[int(word)] if word.isdigit() else word for word in words if not word.isdigit() or int(word) < len(every)
    ]


class State:
    """What CUDA holds in a process."""

    owner = None  # the process that initialised it
    current = 0
    contexts = set()
    held = peak = 0
    limit = TOTAL
    synced = time.perf_counter()


def initialise():
    """Initialise CUDA in this process, which makes no context yet."""
    if State.owner not in (None, os.getpid()):
        say("BAD FORK")
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
    State.owner = os.getpid()


def touch(device=None):
    """Use a device, as everything does that needs its context."""
    initialise()
    index = State.current if device is None else device
    if index >= len(uuids()):
        raise RuntimeError("CUDA error: invalid device ordinal")
    uuid = uuids()[index]
    if uuid not in State.contexts:
        State.contexts.add(uuid)
        say("context on", uuid[4])
        if os.environ.get("FAKE_CONTEXTS"):
            with open(os.environ["FAKE_CONTEXTS"], "a", encoding="utf-8") as file:
                print(uuid, file=file)
    return index


def play(torch):
    import torch.backends.cudnn
    import torch.distributed
    from torch.overrides import TorchFunctionMode

    cuda, device_of = torch.cuda, torch.device

    def index_of(device):
        if device is None or isinstance(device, int):
            return device
        return device_of(device).index

    def set_device(device):
        State.current = index_of(device)
        touch()

    def synchronize(device=None):
        touch(index_of(device))
        State.synced = time.perf_counter()

    class Event:
        def __init__(self, **options):
            self.at = None

        def record(self, stream=None):
            touch()
            self.at = time.perf_counter()

        def elapsed_time(self, later):
            if max(self.at, later.at) > State.synced:
                raise RuntimeError("CUDA error: device not ready")
            return (later.at - self.at) * 1000

    def fraction(share, device=None):
        State.limit = share * TOTAL

    def empty_cache():
        State.held = 0

    def reset_peak(device=None):
        State.peak = State.held

    def properties(device=None):
        initialise()
        index = State.current if index_of(device) is None else index_of(device)
        major, minor = divmod(int(os.environ.get("FAKE_SM", "90").split(";")[0]), 10)
        fields = {"name": "fake", "major": major, "minor": minor, "total_memory": TOTAL}
        return type("Properties", (), {**fields, "uuid": uuids()[index].removeprefix("GPU-")})

    others = int(os.environ.get("FAKE_OTHERS", "0"))
    names = {
        "is_available": lambda: bool(uuids()),
        "device_count": lambda: len(uuids()),
        "is_initialized": lambda: State.owner == os.getpid(),
        "_lazy_init": touch,
        "_is_in_bad_fork": lambda: State.owner not in (None, os.getpid()),
        "set_device": set_device,
        "current_device": touch,
        "synchronize": synchronize,
        "Event": Event,
        "mem_get_info": lambda device=None: (TOTAL - CONTEXT - others - State.held, TOTAL),
        "memory_reserved": lambda device=None: State.held,
        "memory_allocated": lambda device=None: State.held,
        "max_memory_allocated": lambda device=None: State.peak,
        "max_memory_reserved": lambda device=None: State.peak,
        "reset_peak_memory_stats": reset_peak,
        "empty_cache": empty_cache,
        "set_per_process_memory_fraction": fraction,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_device_properties": properties,
        "get_device_capability": lambda device=None: (properties(device).major, properties(device).minor),
        "is_current_stream_capturing": lambda: False,
    }
    for name, value in names.items():
        setattr(cuda, name, value)
    accelerator = torch.accelerator
    accelerator.is_available = lambda: True
    accelerator.current_accelerator = lambda check_available=False: device_of("cuda")
    accelerator.current_device_index = touch
    accelerator.set_device_index = set_device
    accelerator.current_stream = lambda device=None: type("Stream", (), {"is_capturing": lambda self: False})()
    real_pin = torch.Tensor.pin_memory

    def pin_memory(self, device=None):
        touch()  # pinned for the current device, whose context it makes
        return self

    torch.Tensor.pin_memory = pin_memory
    assert real_pin is not pin_memory
    size = float(os.environ.get("FAKE_IMAGE_MIB", "100")) * 2**20

    def on_cpu(value):
        if isinstance(value, (str, device_of)) and str(value).startswith("cuda"):
            touch(device_of(value).index)
            return device_of("cpu"), True
        return value, False

    class OnCpu(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is device_of:
                return func(*args, **(kwargs or {}))
            moved = [on_cpu(value) for value in args]
            named = {name: on_cpu(value) for name, value in (kwargs or {}).items()}
            if func is torch.randn and len(args) == 4 and named.get("device", ("", False))[1]:
                if args[0] * args[1] * args[2] * args[3] >= INDICES:
                    raise RuntimeError("Expected canUse32BitIndexMath(input) to be true, but got false.")
                want = int(args[0] * size)
                if want > min(State.limit, TOTAL - CONTEXT - others):
                    raise RuntimeError(os.environ.get("FAKE_OOM", "CUDA out of memory. Tried to allocate 7 MiB."))
                say("images", args[0], "search by cuDNN", torch.backends.cudnn.benchmark)
                State.held = want
                State.peak = max(State.peak, want)
            result = func(*(value for value, _ in moved), **{name: value for name, (value, _) in named.items()})
            if func is torch.Tensor.to and any(was for _, was in (*moved, *named.values())):
                result.on_gpu = True
            return result

    OnCpu().__enter__()
    real_autocast = torch.autocast

    class Autocast(real_autocast):
        def __init__(self, device_type, dtype=None, enabled=True, cache_enabled=None):  # noqa: FBT002 -- torch's own
            if device_type == "cuda":
                touch()
            say("autocast", dtype)
            super().__init__("cpu" if device_type == "cuda" else device_type, dtype, enabled, cache_enabled)

    torch.autocast = torch.amp.autocast = Autocast

    def compiled(model=None, **options):
        say("compile")
        return model

    torch.compile = compiled
    real_version = torch.backends.cudnn.version

    def version():
        initialise()
        return real_version()

    torch.backends.cudnn.version = version
    if torch.distributed.is_available():
        real_join = torch.distributed.init_process_group

        def join(backend=None, **options):
            if backend == "nccl":
                touch()
            real_join("gloo", **options)

        torch.distributed.init_process_group = join


def play_build(versions):
    """Whatever build of torch this is, it was built for CUDA."""
    versions.torch_build = lambda: ("2.15.0+cu132", "13.2")


class Hook:
    """Plays a module right after it was imported."""

    plays = {"torch": play, "harness.machine.versions": play_build}

    def find_spec(self, name, path=None, target=None):
        played = self.plays.pop(name, None)
        if played is None:
            return None
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            played(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("FAKE_CUDA"):
    sys.meta_path.insert(0, Hook())
