"""`tables/*.toml` -> `Spec`: what was printed, and what to measure to check it."""

from harness.spec.catalog import Catalog
from harness.spec.model import (
    Cell,
    Column,
    Family,
    Footnote,
    Nearest,
    Printed,
    PublishedMachine,
    Reference,
    Row,
    Source,
    Spec,
)
from harness.spec.read import load

__all__ = [
    "Catalog",
    "Cell",
    "Column",
    "Family",
    "Footnote",
    "Nearest",
    "Printed",
    "PublishedMachine",
    "Reference",
    "Row",
    "Source",
    "Spec",
    "load",
]
