"""The data flows one way, each heavy library has one home, and the light commands stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "harness"

# A module imports from its own layer or from earlier ones, never from later ones.
LAYERS = (
    {"__init__"},
    {"errors", "stats", "noise", "machine", "kinds", "datasets"},
    {"spec"},
    {"job"},
    {"recipe"},
    {"stages"},
    {"plan"},
    {"result", "predictions"},
    {"store"},
    {"progress"},
    {"jobs", "launch"},
    {"run"},
    {"cluster"},
    {"newest", "table"},
    {"diff", "limits", "compare", "effects", "paired", "baseline", "baseline_file", "charts"},
    {"gate"},
    {"report", "figure"},
    {"cli"},
    {"gauge"},
    {"pytest_plugin"},
    {"__main__"},
)

HOMES = {
    "torch": {"jobs"},
    "torchvision": {"jobs"},
    "timm": {"jobs"},
    "pynvml": {"machine"},
    "matplotlib": {"figure"},
    "pandas": {"table", "figure", "report"},
    "pyarrow": {"report"},
    "mlflow": {"report"},
    "pytest": {"pytest_plugin"},
    "rich": {"report", "cli"},
    "jinja2": {"report"},
    "click": {"cli"},
    "submitit": {"launch", "cluster"},
    "multiprocessing": {"jobs", "launch"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_layer() -> None:
    assert {room(path) for path in MODULES} == set().union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_layer_and_earlier_ones(path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "harness" or len(parts) < 2:
            continue
        imported = parts[1] if (PACKAGE / parts[1]).exists() or (PACKAGE / f"{parts[1]}.py").exists() else "__init__"
        assert level(imported) <= level(room(path)), f"{room(path)} imports {imported}, which is to its right"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_heavy_library_is_imported_only_in_its_home(path: Path) -> None:
    for name in imports(path):
        library = name.partition(".")[0]
        assert room(path) in HOMES.get(library, {room(path)}), f"{room(path)} imports {library}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_imports_jobs_but_jobs(path: Path) -> None:
    imported = [name for name in imports(path) if name.startswith("harness.jobs")]
    assert not imported or room(path) == "jobs"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "table5"],
        ["plan", "table5", "--device", "cpu"],
        ["reproduce", "tabel5"],
        ["reproduce", "table5", "--batch", "none"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["harness", *{arguments!r}]
from harness.cli import main
try:
    main()
finally:
    heavy = {{"torch", "timm", "pandas", "matplotlib", "numpy", "scipy", "jinja2"}} & sys.modules.keys()
    print("heavy:", sorted(heavy))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "heavy: []"
