"""The harness in Python: notebooks and scripts get what the command line prints, and its sentences."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from docs.generate import CPU_RESULTS
from harness import api
from harness.errors import HarnessError
from harness.report.export import FIELDS, records
from harness.run.runner import Runner
from harness.store.store import Store
from tests.commands import Completed, clean_environment, run_harness
from tests.test_architecture import HEAVY

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"

SMALL = """
[table]
title = "Small models"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 1
[source.own]
kind = "author"
[row.tiny]
label = "tiny"
set = { model = "test_vit", res = 160 }
own = { params = 1 }
[row.odd]
label = "odd <size>"
set = { model = "test_vit", res = 161 }
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def reference() -> api.TableList:
    return api.report("table5", runs=CPU_RESULTS)


def test_the_api_imports_nothing_heavy_and_no_command_line() -> None:
    code = f"import sys, harness.api; print(*sys.modules.keys() & {{*{HEAVY!r}, 'click', 'harness.cli'}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


# What is refused.


@pytest.mark.parametrize(
    ("call", "options", "arguments"),
    [
        (api.reproduce, {"tables": ["tabel5"]}, ["reproduce", "tabel5"]),
        (api.plan, {"tables": ["table5"], "rows": "deit_tie"}, ["plan", "table5", "--rows", "deit_tie"]),
        (api.report, {"tables": ["table5"], "columns": ["top2"]}, ["report", "table5", "--columns", "top2"]),
        (api.report, {"tables": ["table5"], "only": "counts"}, ["report", "table5", "--only", "counts"]),
        (api.reproduce, {"tables": ["table5"], "scale": "proxy"}, ["reproduce", "table5", "--scale", "proxy"]),
        (api.reproduce, {"tables": ["table5"], "seeds": 2}, ["reproduce", "table5", "--seeds", "2"]),
        (
            api.reproduce,
            {"tables": ["table5"], "data": {"imagenett": "x"}},
            ["reproduce", "table5", "--data", "imagenett=x"],
        ),
        (
            api.reproduce,
            {"tables": ["table5"], "weights": "missing"},
            ["reproduce", "table5", "--weights", "missing"],
        ),
        (
            api.reproduce,
            {"tables": ["table5"], "train": True, "changes": {"epoch": 3}},
            ["reproduce", "table5", "--train", "--set", "epoch=3"],
        ),
        (
            api.reproduce,
            {"tables": ["table2"], "rows": "deit_b", "train": True, "data": {"imagenet": "x"}},
            ["reproduce", "table2", "--rows", "deit_b", "--train", "--data", "imagenet=x"],
        ),
        (
            api.reproduce,
            {"tables": ["table5"], "train": True, "budget": 60},
            ["reproduce", "table5", "--train", "--budget", "60s"],
        ),
        (api.plan, {"tables": ["table5"], "device": "cuda:9"}, ["plan", "table5", "--device", "cuda:9"]),
        (api.report, {"tables": ["table5"], "runs": "missing"}, ["report", "table5", "--runs", "missing"]),
        (api.figure, {"tables": ["table5"], "x": "weight"}, ["figure", "table5", "--x", "weight"]),
        (api.figure, {"tables": ["table8"]}, ["figure", "table8"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_has_the_sentence_of_the_command_line(
    call: Callable[..., object],
    options: Mapping[str, Any],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the command has it: the machine is named with it
    tables = options["tables"]
    with pytest.raises(HarnessError) as raised:
        call(*tables, **{name: value for name, value in options.items() if name != "tables"})
    printed = run_harness(tmp_path, *arguments)
    assert printed.returncode == 2
    # click names the option before a value that it cannot have.
    assert printed.stderr.removesuffix("\n").endswith(str(raised.value))
    assert printed.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": "deit_ti"}, "unknown option 'row'; did you mean 'rows'?"),
        ({"batch": "huge"}, "batch must be 'auto' or 'largest' or an integer, not 'huge'"),
        ({"protocol": "old"}, "protocol must be 'paper' or 'modern' or 'timm', not 'old'"),
        ({"memory": "lots"}, "memory must be an amount, as 16GiB or 16GB, or all, not 'lots'"),
        ({"train": True, "scale": "tiny"}, "scale must be 'full' or 'proxy' or 'smoke', not 'tiny'"),
        ({"edition": "iclr"}, "--edition iclr: 'table5' has arxiv, icml; did you mean 'icml'?"),
        ({"budget": 0}, "budget = 0 is not a time; it is a number of seconds above 0"),
    ],
)
def test_an_option_that_is_none_or_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError) as raised:
        api.reproduce("table5", **options)
    assert str(raised.value) == message


def test_a_call_without_a_table_is_refused() -> None:
    with pytest.raises(HarnessError) as raised:
        api.reproduce()
    assert str(raised.value) == "the name of a table is missing; `harness list` shows the tables"


# What there is already.


def test_a_spec_is_loaded_by_its_name_in_either_edition_or_by_its_path(small: Path) -> None:
    assert api.load("icml:6").name == "table7"
    assert api.load("table6", edition="icml").numbers["icml"] == "Table 6"
    assert [row.key for row in api.load(small).rows] == ["tiny", "odd"]


def test_a_frame_has_what_the_csv_of_the_command_line_has(reference: api.TableList, tmp_path: Path) -> None:
    printed = run_harness(tmp_path, "report", "table5", "--runs", str(CPU_RESULTS), "--format", "csv")
    ours = pd.read_csv(io.StringIO(reference["table5"].to_frame().to_csv(index=False)))
    pd.testing.assert_frame_equal(ours, pd.read_csv(io.StringIO(printed.stdout)))
    assert len(ours) == len(reference[0].diff.judged_cells)
    pd.testing.assert_frame_equal(reference.to_frame(), api.results(CPU_RESULTS, tables=["table5"]))


def test_a_table_as_text_is_what_a_terminal_shows(reference: api.TableList, tmp_path: Path) -> None:
    printed = run_harness(tmp_path, "report", "table5", "--runs", str(CPU_RESULTS), COLUMNS="100")
    assert str(reference) == printed.stdout


def test_a_cell_is_found_by_its_keys_and_a_table_by_its_name(reference: api.TableList) -> None:
    assert reference["table5"].cell("resnet18", "params").filled.number == pytest.approx(11.689512)
    with pytest.raises(HarnessError) as raised:
        reference["table5"].cell("resnet81", "params")
    assert str(raised.value) == "unknown row 'resnet81' in table5; did you mean 'resnet18'?"
    with pytest.raises(HarnessError) as raised:
        reference["table6"]
    assert str(raised.value) == "unknown table 'table6' among table5; did you mean 'table5'?"


def test_a_notebook_shows_the_table_with_the_reason_on_each_cell(reference: api.TableList) -> None:
    html = reference["table5"]._repr_html_()
    measured = reference["table5"].cell("deit_ti", "throughput")
    assert f'title="{measured.reason}"' in html
    assert all(f">{row.label}</th>" in html for row in reference["table5"].diff.spec.rows)
    assert "<script" not in html
    assert "<button" not in html
    assert reference._repr_html_() == html


def test_every_stored_metric_is_a_row_with_the_types_of_the_export() -> None:
    frame, lines = api.stored_runs(CPU_RESULTS), list(records(Store(CPU_RESULTS).all_results()))
    assert list(frame.columns) == list(FIELDS)
    assert list(frame["run"]) == [line["run"] for line in lines]
    assert list(frame["value"].dropna()) == [line["value"] for line in lines if line["value"] is not None]
    assert (str(frame["started"].dtype), str(frame["batch"].dtype)) == ("datetime64[us, UTC]", "Int64")


def test_a_folder_without_runs_gives_a_frame_without_rows(tmp_path: Path) -> None:
    assert list(api.stored_runs(tmp_path).columns) == list(FIELDS)
    assert len(api.stored_runs(tmp_path)) == 0


def test_a_damaged_file_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "count-x").mkdir()
    (tmp_path / "count-x" / "1.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="1.json"):
        api.stored_runs(tmp_path)


def test_a_figure_shows_itself_and_is_saved_as_the_command_line_draws_it(tmp_path: Path) -> None:
    figure = api.figure("table5", x="params", y="throughput", runs=CPU_RESULTS)
    assert figure.is_measured
    saved = figure.save(tmp_path / "ours.svg")
    options = ["--x", "params", "--y", "throughput", "--runs", str(CPU_RESULTS), "-o", "theirs.svg"]
    assert run_harness(tmp_path, "figure", "table5", *options).returncode == 0
    assert saved.read_bytes() == (tmp_path / "theirs.svg").read_bytes() == figure._repr_svg_().encode()


# What is measured.


def test_a_plan_tells_what_is_known_what_would_run_and_what_is_blocked() -> None:
    planned = api.plan("table5", rows="resnet18", runs=CPU_RESULTS, device="cpu")
    assert [job.kind for job in planned.known] == ["count"]
    assert [job.kind for job in planned.missing if job.kind != "throughput"] == []
    assert planned.blocked == {
        "needs --data imagenet=PATH": ("ImNet top-1 of ResNet-18", "Real top-1 of ResNet-18"),
        "needs --data imagenet-v2=PATH": ("V2 top-1 of ResNet-18",),
    }
    frame = planned.to_frame()
    assert list(frame["kind"]) == ["count", "throughput"]
    assert frame["measured"][0]
    assert frame["cells"][1] == ["throughput of ResNet-18"]


def run_script(folder: Path, text: str) -> Completed:
    """Run a script of top-level statements, as people write them: not guarded against being imported."""
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    environment = clean_environment(folder, PYTHONPATH=os.pathsep.join(sys.path))
    ran = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    return Completed(returncode=ran.returncode, stdout=ran.stdout, stderr=ran.stderr)


def test_a_script_measures_under_a_running_event_loop_and_a_failed_job_is_a_verdict(small: Path) -> None:
    ran = run_script(
        small.parent,
        """
import asyncio
from harness import api

async def measure():
    return api.reproduce("small.toml", device="cpu")

tables = asyncio.run(measure())
for judged in tables[0].diff.judged_cells.values():
    print(judged.filled.cell.row.key, judged.verdict)
print(len(tables.failed), api.reproduce("small.toml", rows="tiny", device="cpu", progress=False).failed)
print("odd &lt;size&gt;</th>" in tables._repr_html_())
""",
    )
    lines = ran.stdout.splitlines()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert lines[1].startswith("[1/2] count test_vit at 160: params ")
    assert lines[2].startswith("[2/2] count test_vit at 161: failed: 'test_vit'")
    assert lines[3:] == ["tiny match", "odd failed", "1 ()", "True"]


def test_an_interruption_is_raised_with_what_it_left(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "run", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted: what is finished is kept; the same call goes on from"):
        api.reproduce(small, runs=small.parent / "runs", device="cpu", progress=False)


# The notebook.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose runs the tests of the notebook share: what the first has measured the second reuses."""
    return tmp_path_factory.mktemp("notebook")


def check_notebook(folder: Path) -> None:
    table = api.report("table5", runs=folder / "runs", batch=4, repeats=10)[0]
    assert table.cell("resnet18", "params").verdict == "match"
    assert (table.cell("deit_ti", "throughput").filled.number or 0) > 0
    assert (folder / "figures" / "params-throughput.png").read_bytes().startswith(b"\x89PNG")


def test_the_notebook_runs_in_a_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel, of the extra test")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel, of the extra test")
    import nbformat

    for name, value in clean_environment(folder, PYTHONPATH=os.pathsep.join(sys.path)).items():
        monkeypatch.setenv(name, value)
    read: Callable[..., Any] = nbformat.read
    notebook = read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    shown = {cell["id"]: [part.get("data", {}) for part in cell.get("outputs", ())] for cell in notebook.cells}
    for name, form in {"counts": "text/html", "throughput": "text/html", "figure": "image/svg+xml"}.items():
        assert any(form in data for data in shown[name]), name
    check_notebook(folder)


def test_the_cells_of_the_notebook_run_one_after_the_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell in cells:
            assert not cell.get("outputs"), "the notebook is kept without outputs: clear them"
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    assert "failed" not in printed.getvalue()
    check_notebook(folder)
