"""A file appears whole or not at all: a full disk leaves what was there before, for everything that is written."""

import ast
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harness import atomic
from harness.cli.console import write_file
from harness.cli.main import cli
from harness.errors import HarnessError
from harness.figure.draw import draw
from harness.jobs.training.checkpoint import Checkpoints, TrainingState
from harness.judge.table import fill
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.report.html.write import write_site
from harness.run.cluster.ledger import write_json
from harness.specs import Catalog
from harness.store import predictions
from harness.store.store import Store
from tests.fakes import result_of
from tests.test_predictions import predictions_of

COUNT = Job.of("count", {"model": "resnet18", "res": 224})
RESULT = result_of(COUNT)
LONG = "a line that is longer than what a full disk takes\n" * 10
PAGES = {"index.html": LONG, "runs/one.html": LONG}


@contextmanager
def full_disk(size: int = 64) -> Iterator[None]:
    """Refuse every byte of a file after the first ones, whichever library writes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def export_runs(path: Path) -> None:
    if not path.exists():
        Store(path.parent / "runs").save(RESULT)
    cli.main(["runs", "export", "--runs", str(path.parent / "runs"), "-o", str(path)], standalone_mode=False)


def draw_figure(path: Path) -> None:
    (spec,) = Catalog().find(["figure1"])
    draw(fill(spec, make_plan([spec]), {}), path)


def save_checkpoint(folder: Path) -> None:
    Checkpoints(folder, COUNT).save(TrainingState(steps_done=5), {"network.weight": torch.zeros(100)})


def write_pages(folder: Path) -> None:
    write_site(folder, PAGES)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda folder: write_file(folder / "one.json", LONG), id="report -o, baseline -o, check --junit"),
        pytest.param(lambda folder: export_runs(folder / "one.csv"), id="runs export, CSV"),
        pytest.param(lambda folder: export_runs(folder / "one.parquet"), id="runs export, Parquet"),
        pytest.param(lambda folder: draw_figure(folder / "one.svg"), id="figure, SVG"),
        pytest.param(lambda folder: draw_figure(folder / "one.png"), id="figure, PNG"),
        pytest.param(lambda folder: draw_figure(folder / "one.pdf"), id="figure, PDF"),
        pytest.param(lambda folder: Store(folder).save(RESULT), id="result"),
        pytest.param(
            lambda folder: predictions.write(predictions_of(("a", "b")), folder / "one.npz"), id="predictions"
        ),
        pytest.param(lambda folder: write_json(folder / "one.json", [LONG]), id="ledger"),
        pytest.param(save_checkpoint, id="checkpoint"),
        pytest.param(write_pages, id="site"),
    ],
)
def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    assert before
    with full_disk(), pytest.raises(HarnessError):
        write(tmp_path)
    assert contents(tmp_path) == before


def test_a_site_of_which_one_page_cannot_be_written_stays_the_old_site(tmp_path: Path) -> None:
    write_site(tmp_path, {"index.html": "old", "gone.html": "old"})
    with full_disk(), pytest.raises(HarnessError):
        write_site(tmp_path, {"index.html": "new", "runs/one.html": LONG})
    pages = {name: text for name, text in contents(tmp_path).items() if name.endswith(".html")}
    assert pages == {"index.html": b"old", "gone.html": b"old"}
    write_pages(tmp_path)  # it is still known for a site
    assert contents(tmp_path).keys() == {*PAGES, "harness-site.json"}


def test_a_site_leaves_nothing_of_an_earlier_one_nor_of_one_that_was_killed(tmp_path: Path) -> None:
    write_site(tmp_path, {"index.html": "old", "gone/deep/two.html": "old"})
    (tmp_path / ".index.html.0123abcd.tmp").write_text("half")
    (tmp_path / "gone" / "deep" / ".two.html.0123abcd.tmp").write_text("half")
    write_site(tmp_path, {"index.html": "new"})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["harness-site.json", "index.html"]


def test_no_file_is_replaced_before_all_are_written(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "folder" / "two"
    atomic.write_all({one: "old", two: "old"})
    with full_disk(), pytest.raises(OSError, match="File too large"):
        atomic.write_all({one: "new", two: LONG})
    assert (one.read_text(), two.read_text()) == ("old", "old")
    assert len(contents(tmp_path)) == 2


def test_an_error_of_the_library_that_writes_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    atomic.write(tmp_path / "one", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic.replacing(tmp_path / "one") as temporary:
        fail(temporary)
    assert contents(tmp_path) == {"one": b"old"}


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order, replace = tmp_path / "one", list[str](), Path.replace

    def rename(temporary: Path, target: Path) -> Path:
        order.append("rename")
        return replace(temporary, target)

    monkeypatch.setattr(os, "fsync", lambda _: order.append("sync, named" if path.exists() else "sync"))
    monkeypatch.setattr(Path, "replace", rename)
    atomic.write(path, "text")
    assert order == ["sync", "rename", "sync, named"]
    atomic.write(tmp_path / "two", "text", sync=False)
    assert order[3:] == ["rename"]


def test_a_replaced_file_keeps_its_mode_and_a_link_to_it_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "one", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    atomic.write(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    atomic.write(pipe, "text")
    reader.join()
    assert received == ["text"]
    assert pipe.is_fifo()


# Files that belong to one process or one moment: nobody misses what they held before.
IN_PLACE = {"machine/exclusive.py", "jobs/speed/device.py", "run/revisions.py"}


# What libraries write files with: to a temporary one that `atomic` gave out, or to memory.
LIBRARY = {"savefig", "savez", "savez_compressed", "save_file", "write_table", "to_parquet"}
COPIES = {"copy", "copy2", "copyfile", "copytree", "move"}


def writes(call: ast.Call) -> bool:
    """Whether a call writes a file in place."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    module = getattr(getattr(call.func, "value", None), "id", "")
    if name == "open":
        return any(isinstance(mode, ast.Constant) and str(mode.value)[:1] in ("w", "x") for mode in call.args)
    if name in LIBRARY or (module, name) in {("np", "save"), ("torch", "save")}:
        return not {getattr(argument, "id", "") for argument in call.args} & {"temporary", "content"}
    if module == "formatter":  # of the help, which is printed
        return False
    return name in {"write_text", "write_bytes"} or (module == "shutil" and name in COPIES)


def test_no_module_writes_a_file_in_another_way() -> None:
    package = Path(atomic.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and writes(node)
    }
    assert found == {"atomic.py", *IN_PLACE}


def test_half_a_character_is_written_as_its_number(tmp_path: Path) -> None:
    atomic.write(tmp_path / "file", "é\udc80")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "é\\udc80"
