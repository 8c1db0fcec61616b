"""The data flows one way, each heavy library has one home, and the light commands stay light."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "harness"

# A module imports from its own layer or from earlier ones, never from later ones.
LAYERS = (
    {"__init__"},
    {"errors", "stats", "atomic", "cleaning"},
    {"specs"},
    {"machine"},
    {"plan"},
    {"store"},
    {"run"},
    {"jobs"},
    {"judge"},
    {"gate"},
    {"report"},
    {"figure"},
    {"api"},
    {"cli"},
    {"pytest_plugin"},
    {"__main__"},
)

HOMES = {
    "torch": {"jobs"},
    "torchvision": {"jobs"},
    "timm": {"jobs"},
    "transformers": {"jobs"},
    "onnxruntime": {"jobs"},
    "pynvml": {"machine"},
    "matplotlib": {"figure"},
    "pandas": {"judge", "figure", "report", "api"},  # whose types are DataFrames
    "pyarrow": {"report"},
    "pylatexenc": {"specs", "report"},
    "mlflow": {"report"},
    "pytest": {"pytest_plugin"},
    "rich": {"report", "cli"},
    "jinja2": {"report"},
    "click": {"cli"},
    "submitit": {"run"},
    "multiprocessing": {"jobs", "run"},
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


def test_a_room_has_at_most_twenty_modules_and_the_top_seventeen_entries() -> None:
    for folder in {path.parent for path in MODULES}:
        assert len(list(folder.glob("*.py"))) <= 20, folder
    top = {room(path) for path in MODULES} - {"__init__", "__main__"}
    assert len(top) <= 17, top


def test_a_public_class_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


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


HEAVY = ("torch", "timm", "pandas", "matplotlib", "numpy", "scipy", "jinja2", "rich", "multiprocessing", "pylatexenc")


def imported_by(folder: Path, *arguments: str, **variables: str) -> list[str]:
    """Return the heavy libraries that a command imports."""
    code = f"""
import sys
sys.argv = ["harness", *{arguments!r}]
from harness.cli import main
try:
    main()
finally:
    print("heavy:", *sys.modules.keys() & {set(HEAVY)})
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **variables}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    return ran.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "table5"],
        ["plan", "table5", "--device", "cpu"],
        ["reproduce", "--help"],
        ["reproduce", "tabel5"],
        ["reproduce", "table5", "--batch", "none"],
        ["why", "batch_size=60", "world_size=8"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert imported_by(tmp_path, *arguments) == []


def test_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    variables = {"COMP_WORDS": "harness report table5 --rows d", "COMP_CWORD": "4"}
    assert imported_by(tmp_path, _HARNESS_COMPLETE="bash_complete", **variables) == []


def test_what_does_not_run_with_the_oldest_versions_imports_none_of_the_libraries_that_have_one() -> None:
    root = PACKAGE.parent
    once = re.findall(r"--ignore tests/(test_\w+)\.py", (root / "tox.ini").read_text(encoding="utf-8"))
    assert once
    names = ", ".join(f"tests.{name}" for name in once)
    libraries = {*HOMES, *HEAVY, "filelock", "huggingface_hub", "PIL", "safetensors", "sklearn"} - {"pytest"}
    code = f"import sys, {names}\nprint(*sys.modules.keys() & {libraries})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.split() == []
