"""Where `harness runs export` writes, by the name it is given."""

from pathlib import Path

from harness.errors import HarnessError
from harness.result import Result

SUFFIXES = (".csv", ".parquet")


def write(results: list[Result], path: Path, *, mlflow: bool) -> str:
    """Write some runs and say what was written.

    Raises `HarnessError` for a suffix that means nothing, or a place that cannot be written.
    """
    try:
        if mlflow:
            return _to_mlflow(results, path)
        if path.suffix.lower() not in SUFFIXES:
            raise HarnessError(
                f"-o {path}: runs are written as {' or '.join(SUFFIXES)}; choose one by the suffix, or add --mlflow"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        _to_file(results, path)
    except OSError as error:
        raise HarnessError(f"-o {path}: {error.strerror or error}; name another file") from error
    return f"{path}: {len(results)} runs"


def _to_file(results: list[Result], path: Path) -> None:
    from harness.report.export import render_results_csv, write_parquet

    if path.suffix.lower() == ".csv":
        path.write_text(render_results_csv(results), encoding="utf-8")
    else:
        write_parquet(results, path)


def _to_mlflow(results: list[Result], path: Path) -> str:
    from harness.report.tracking import export_to_mlflow

    if path.suffix.lower() in SUFFIXES or (path.suffix != ".db" and path.is_file()):
        raise HarnessError(f"-o {path}: MLflow keeps its runs in a folder, or in a .db file; name one")
    added = export_to_mlflow(results, path)
    there = len(results) - added
    return f"{path}: {added} runs" + (f", {there} there already" if there else "")
