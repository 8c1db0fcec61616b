"""The available tables, by their names in either edition."""

import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from harness.errors import HarnessError, did_you_mean
from harness.specs.derivation import is_file
from harness.specs.model import Spec
from harness.specs.reader import load

EDITIONS = ("arxiv", "icml")

_NUMBERED = re.compile(r"(?P<kind>table|figure)?\s*(?P<number>\d+)")
_EDITION = re.compile(r"(?P<edition>arxiv|icml)[:\-/ ]?(?P<name>.+)")


def shipped_specs() -> Path:
    """Return the folder of the specs that come with the program: inside the package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "tables"
    return inside if inside.is_dir() else package.parent / "tables"


def schema_file(name: str) -> Path:
    """Return the JSON schema of a `spec`, a `recipe` or the `settings`, by which editors check a file."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "schemas"
    return (inside if inside.is_dir() else package.parent / "docs" / "schemas") / f"{name}.json"


def name_to_type(path: Path) -> str:
    """Return what names a table on the command line: its name if it is shipped, else its path.

    A path that does not begin in the working folder is not repeated: it is `FILE`.
    """
    if path.parent == shipped_specs():
        return path.stem
    return "FILE" if path.is_absolute() else quote(str(path))


class Catalog:
    """The spec files of a folder, found by name."""

    def __init__(self, folder: Path | None = None, *, edition: str = "arxiv") -> None:
        self._folder = folder or shipped_specs()
        self._edition = edition
        self._paths = {path.stem: path for path in sorted(self._folder.glob("*.toml"), key=_in_order)}

    @property
    def names(self) -> tuple[str, ...]:
        """Every shipped table: tables by number, then the others."""
        return tuple(self._paths)

    def find(self, names: Iterable[str]) -> tuple[Spec, ...]:
        """Load the tables of these names.

        A name is that of a shipped table (`table5`, `5`, `icml:table6`), a path that ends in `.toml`, or `all`.
        Raises `HarnessError` for an unknown name.
        """
        tables: dict[str, Spec] = {}
        for name in names:
            if name == "all":
                specs = [
                    spec for spec in map(self._load, self.names) if self._edition in spec.numbers or not spec.numbers
                ]
            else:
                specs = [self._find(name)]
            tables.update((spec.id, spec) for spec in specs)
        return tuple(tables.values())

    def _load(self, name: str, edition: str | None = None) -> Spec:
        return _in_edition(load(self._paths[name]), edition or self._edition)

    def _find(self, name: str) -> Spec:
        if name.endswith(".toml"):
            return _in_edition(load(Path(name)), self._edition)
        edition, plain = self._edition, name.strip().lower()
        explicit = _EDITION.fullmatch(plain)
        if explicit:
            edition, plain = explicit["edition"], explicit["name"]
        numbered = _NUMBERED.fullmatch(plain)
        if numbered:
            plain = f"{numbered['kind'] or 'table'}{numbered['number']}"
            if edition == "icml":
                return self._icml(plain, name)
        if plain not in self._paths:
            raise HarnessError(f"unknown table '{name}'{self._hint(name, plain)} `harness list` shows them all")
        return self._load(plain, edition)

    def _hint(self, name: str, plain: str) -> str:
        """Return which table may be meant by a name, a file without its suffix first."""
        own = f"{name}.toml"
        if is_file(Path(own)):
            return f"; did you mean '{own}'?"
        if "/" in name:
            return "; one of your own is the path of a file that ends in .toml;"
        return did_you_mean(plain, [*self.names, "all"]) or ";"

    def _icml(self, plain: str, name: str) -> Spec:
        """Find a table by its ICML number: ICML's table 6 is table 7 of the arXiv edition."""
        specs = {load(path).numbers.get("icml", "").lower().replace(" ", ""): key for key, path in self._paths.items()}
        if plain not in specs:
            raise HarnessError(f"the ICML edition has no '{name}'; `harness list --edition icml` shows what it has")
        return self._load(specs[plain], "icml")


def _in_edition(spec: Spec, edition: str) -> Spec:
    """Return a table in an edition.  Raises `HarnessError` for one of a table's own that this one does not have."""
    if edition not in (*EDITIONS, *spec.editions):
        known = ", ".join(spec.editions or EDITIONS)
        raise HarnessError(f"--edition {edition}: '{spec.name}' has {known}{did_you_mean(edition, spec.editions)}")
    return spec.in_edition(edition)


def _in_order(path: Path) -> tuple[int, int, str]:
    """Sort tables by number first, then figures, then the rest by name."""
    numbered = re.fullmatch(r"(table|figure)(\d+)", path.stem)
    if numbered:
        return (0 if numbered[1] == "table" else 1, int(numbered[2]), path.stem)
    return (2, 0, path.stem)
