"""An error -> whether a batch is too large: the texts by which torch, its libraries and the driver say so."""

import re
from collections.abc import Iterator

import torch

OUT_OF_MEMORY = "out of memory"

# The first that an error's text contains says why.  A library that cannot start, or finds no algorithm, mostly lacks
# memory, but not always: what is reported names it.
_TEXTS: tuple[tuple[str, str], ...] = (
    (r"(?i:\b(cuda|triton)\b.*out of memory)|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation", OUT_OF_MEMORY),
    (r"\bCU[A-Z]+_(STATUS_)?([A-Z_]+_)?ALLOC(ATION)?_FAILED", OUT_OF_MEMORY),
    (r"DefaultCPUAllocator: (can't allocate|not enough) memory|std::bad_alloc", OUT_OF_MEMORY),
    (r"NVML_SUCCESS == r INTERNAL ASSERT FAILED", OUT_OF_MEMORY),  # the allocator's own report of it failed
    (r"CUBLAS_STATUS_NOT_INITIALIZED when calling .?cublas(Lt)?Create", "out of memory for cuBLAS to start"),
    (r"CUDNN_STATUS_NOT_INITIALIZED", "out of memory for cuDNN to start"),
    (r"(?i:unable to find (an engine|a valid cuDNN algorithm))", "out of memory for any algorithm of cuDNN"),
    (r"(?i:32-?bit ind|use_?32bit_?index)|int32_t max|\bINT_MAX\b", "too many elements for 32-bit indices"),
    (r"cannot be converted to type int(32_t)? without overflow", "too many elements for 32-bit indices"),
    (r"CUDA error: invalid configuration argument", "too many blocks for a kernel"),
)


def too_large(error: BaseException) -> str:
    """Return what a batch is too large for, `out of memory` as a rule; empty if the error says something else.

    Compilers wrap the error that they met, so its causes are looked at as well.
    """
    return next(filter(None, map(_reason, _with_causes(error))), "")


def _reason(error: BaseException) -> str:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return OUT_OF_MEMORY
    # A process in which inductor compiles reports by a class that is no `RuntimeError`.
    if not isinstance(error, RuntimeError) and not type(error).__module__.startswith("torch."):
        return ""
    return next((reason for pattern, reason in _TEXTS if re.search(pattern, str(error))), "")


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, BaseException) and not any(cause is each for each in seen):
            seen.append(cause)
            yield cause
            pending += [cause.__cause__, getattr(cause, "inner_exception", None)]
