"""The `derived` and `of` of a cell -> `Derivation`: from which cells it is computed, and how; or what is wrong.

Another table is only looked into, not read as a spec: two tables may refer to each other.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, abridged, did_you_mean
from harness.specs.checked import TABLE, TEXT, Constraint, Reader
from harness.specs.document import Document
from harness.specs.model import Derivation, Operand

# Each operation, and how many cells it takes at most.
OPERATIONS: Mapping[str, int | None] = {"difference": 2, "sum": None, "ratio": 2, "change": 2}

DERIVED: Mapping[str, Constraint] = {
    "derived": Constraint(types=(str,), choices=tuple(OPERATIONS)),
    "of": Constraint(types=(list,), items=TABLE),
}
OPERAND = dict.fromkeys(("table", "row", "column"), TEXT)

# What says how a cell is measured, which a derived one is not.
_MEASURING = ("job", "metric", "set", "train")


class DerivationReader(Reader):
    """Reads the derived cells of one file; `parts` is what the file holds, as it is."""

    def __init__(self, reader: Reader, path: Path, parts: Mapping[str, Any]) -> None:
        super().__init__(reader.report)
        self._path = path
        self._tables: dict[Path, Mapping[str, Any]] = {path: parts}

    def read(self, entry: Mapping[str, Any], cell: tuple[str, str], *keys: str) -> Derivation | None:
        """Return how a cell, named by row and column, is derived by an entry of the file; None after a mistake.

        `entry` holds what is right in it.
        """
        where = f"[{'.'.join(keys)}]"
        for name in _MEASURING:
            if name in entry:
                self.report(f"{name} in {where} is of no use: its cells are derived, not measured", *keys, name)
        operation, raw = str(entry.get("derived", "")), entry.get("of", [])
        if not (operation and raw):
            given, other = ("derived", "of") if operation else ("of", "derived")
            if other not in _dict(self._tables[self._path], *keys):  # else it is wrong, which is reported already
                self.report(
                    f"{given} in {where} needs {other}: how a cell is derived, and of which cells", *keys, given
                )
            return None
        most = OPERATIONS[operation]
        if len(raw) < 2 or len(raw) > (most or len(raw)):
            count = f"{'at least ' if most is None else ''}2 cells"
            self.report(f"of in {where}: a {operation} is of {count}, not of {len(raw)}", *keys, "of")
            return None
        operands = [self._operand(each, cell, *keys) for each in raw]
        known = [operand for operand in operands if operand is not None]
        if len(known) < len(operands):
            return None
        if len(set(known)) < len(known):
            self.report(f"of in {where} names one cell twice", *keys, "of")
        units = dict.fromkeys(str(self._measured(operand).get("unit", "")) for operand in known)
        if operation != "ratio" and len(units) > 1:
            shown = " and ".join(f"'{unit}'" for unit in units)
            self.report(f"of in {where}: a {operation} is of cells of one unit, not of {shown}", *keys, "of")
        return Derivation(operation=operation, operands=tuple(known))

    def _operand(self, raw: Mapping[str, Any], cell: tuple[str, str], *keys: str) -> Operand | None:
        """Return the cell that an item names; what it leaves out is as in the derived cell."""
        place = (*keys, "of")
        entry = self.table(raw, OPERAND, *place)
        path = self.find_file(entry["table"], place) if "table" in entry else self._path
        table = self._read(path, place)
        if path is None or table is None or len(entry) < len(raw):
            return None
        operand = Operand(path=path, row=entry.get("row", cell[0]), column=entry.get("column", cell[1]))
        where = f" in [{'.'.join(place)}]" + (f", table '{entry['table']}'" if "table" in entry else "")
        if not all(
            [
                self.known(operand.row, _dict(table, "row"), "row", *place, where=where),
                self.known(operand.column, _dict(table, "column"), "column", *place, where=where),
            ]
        ):
            return None
        measured, name = self._measured(operand), f"row '{operand.row}', column '{operand.column}'{where}"
        if "derived" in measured:
            self.report(f"{name} is derived itself; name the cells that it is derived of", *place)
        elif "job" not in measured:
            self.report(f"{name} has no job: nothing measures it", *place)
        elif measured.get("text") is True:
            self.report(f"{name} is text; a cell is derived of numbers", *place)
        else:
            return operand
        return None

    def find_file(
        self, name: str, place: Iterable[str], *, what: str = "table", folder: str = "", key: str = ""
    ) -> Path | None:
        """Return the file of a table or of `what`: next to this one, or among those that come with the program.

        `key` names it in the spec, where that is not `what`.
        """
        from harness.specs.catalog import shipped_specs  # noqa: PLC0415 -- the catalog reads specs itself

        folders = [parent / folder for parent in (self._path.parent, shipped_specs())]
        file = name if name.endswith(".toml") else f"{name}.toml"
        path = next((path for each in folders if is_file(path := each / file)), None)
        if path is None:
            names = [path.stem for each in folders for path in sorted(each.glob("*.toml"))]
            known = did_you_mean(name, names)
            self.report(f"unknown {what} '{abridged(name)}' in [{'.'.join(place)}]{known}", *place, key or what)
        return path

    def _read(self, path: Path | None, place: Iterable[str]) -> Mapping[str, Any] | None:
        """Return what a file of a table has; None if there is none or it cannot be read, which is reported."""
        if path is not None and path not in self._tables:
            try:
                self._tables[path] = Document.read(path, expected="a table").data
            except HarnessError as error:
                self.report(str(error), *place)
        return self._tables.get(path) if path else None

    def _measured(self, operand: Operand) -> dict[str, Any]:
        """Return what column, row and cell say of a cell; the innermost of them decides between `job` and `derived`."""
        table, merged = self._tables[operand.path], dict[str, Any]()
        row = _dict(table, "row", operand.row)
        for level in (_dict(table, "column", operand.column), row, _dict(row, "cell", operand.column)):
            if level.keys() & {"job", "derived"}:
                merged = {name: value for name, value in merged.items() if name not in ("job", "derived")}
            merged |= level
        return merged


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have has none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _dict(table: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return the table at these keys of a file that may hold anything; an empty one where there is none."""
    inner: Any = table
    for key in keys:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}
