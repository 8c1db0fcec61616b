"""`Diff` -> text: terminal, Markdown, LaTeX, CSV, JSON.  Rendering is pure; only `cli` writes."""

from harness.report.data import render_csv, render_json, render_sides_csv, render_sides_json
from harness.report.latex import render_latex, render_sheets_latex
from harness.report.markdown import render_comment, render_markdown, render_sheets_markdown
from harness.report.pytest_benchmark import render_pytest_benchmark
from harness.report.sides import sides_sheets
from harness.report.terminal import render_explanations, render_roofline, render_sheets, render_terminal

__all__ = [
    "render_comment",
    "render_csv",
    "render_explanations",
    "render_json",
    "render_latex",
    "render_markdown",
    "render_pytest_benchmark",
    "render_roofline",
    "render_sheets",
    "render_sheets_latex",
    "render_sheets_markdown",
    "render_sides_csv",
    "render_sides_json",
    "render_terminal",
    "sides_sheets",
]
