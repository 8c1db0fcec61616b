"""What one forward pass does, counted and not timed: the same in every process, on every run, under any load."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.specs.checked import Constraint
from harness.store.record import RecordReader

if TYPE_CHECKING:
    from harness.store.result import Result

# Numbers that are more where a pass does more, with the words for them.
TOTALS: Mapping[str, str] = {
    "calls": "operators",
    "flops": "FLOPs",
    "read": "bytes read",
    "written": "bytes written",
    "allocations": "allocations",
    "peak": "bytes at the peak",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a forward pass of some images does.

    `shape` is that of the images: [batch, channels, height, width].  `operators` counts the calls of each operator by
    its name, the type that it computes in, and ` channels_last` where its images are laid out so; `digest` hashes all
    of them in order, with the shapes and arguments.  `flops` counts two for each product of matrices and convolutions.
    `read` and `written` are the bytes of the tensors that operators take and return, `allocations` the tensors that
    they make, `peak` the most bytes of those at once.  Operators that only look at a tensor in another way do nothing.

    `parameters` counts those of the model, `hooks` the forward hooks on its modules, `training` the modules that are
    not in eval mode; with `gradients` the pass keeps what a backward pass needs.  `kernels` and `graph_breaks` are the
    compiler's, None where nothing is compiled.  Names of operators are those of a version of `torch`.
    """

    torch: str
    shape: tuple[int, ...]
    operators: Mapping[str, int]
    digest: str
    flops: int
    read: int
    written: int
    allocations: int
    peak: int
    parameters: int
    hooks: int = 0
    training: int = 0
    gradients: bool = False
    kernels: int | None = None
    graph_breaks: int | None = None

    @property
    def calls(self) -> int:
        """How many operators are called."""
        return sum(self.operators.values())

    def to_data(self) -> dict[str, Any]:
        """Return it as a result holds it."""
        return {**asdict(self), "shape": list(self.shape), "operators": dict(sorted(self.operators.items()))}


_AMOUNT = Constraint(types=(int,), least=0, required=True)
_COUNT_OR_NULL = Constraint(types=(int, type(None)), least=0)
_NAME = Constraint(types=(str,), required=True)
_FIELDS: Mapping[str, Constraint] = {
    **dict.fromkeys(("torch", "digest"), _NAME),
    "shape": Constraint(types=(list,), items=Constraint(types=(int,), least=1), required=True),
    "operators": Constraint(types=(dict,), required=True),
    **dict.fromkeys(("flops", "read", "written", "allocations", "peak", "parameters", "hooks", "training"), _AMOUNT),
    "gradients": Constraint(types=(bool,), required=True),
    **dict.fromkeys(("kernels", "graph_breaks"), _COUNT_OR_NULL),
}


def cost_of(result: "Result") -> Cost | None:
    """Return what the forward pass of a result does; None where it was not counted."""
    return from_data(result.facts.get("cost"))


def from_data(data: Mapping[str, Any] | None) -> Cost | None:
    """Return what `to_data` wrote; None for None."""
    return None if data is None else Cost(**{**data, "shape": tuple(data["shape"])})


def cost_from(reader: RecordReader, raw: object, *keys: str) -> Cost:
    """Read what `to_data` wrote; the reader refuses what cannot be."""
    data = reader.table(raw, _FIELDS, *keys)
    operators = reader.mapping(data["operators"], Constraint(types=(int,), least=1), *keys, "operators")
    return Cost(**{**data, "shape": tuple(data["shape"]), "operators": operators})
