"""`tables/*.toml` -> `Spec`: what is published, and what to measure to check it."""

from harness.specs.catalog import Catalog
from harness.specs.checked import Constraint
from harness.specs.kinds import Kind
from harness.specs.model import (
    Cell,
    Column,
    Family,
    Footnote,
    PublishedValue,
    Reference,
    Row,
    Spec,
)
from harness.specs.reader import load

__all__ = [
    "Catalog",
    "Cell",
    "Column",
    "Constraint",
    "Family",
    "Footnote",
    "Kind",
    "PublishedValue",
    "Reference",
    "Row",
    "Spec",
    "load",
]
