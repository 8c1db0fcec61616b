"""`Diff` -> text: terminal, Markdown, LaTeX, CSV, JSON.  Rendering is pure; only `cli` writes."""

from harness.report.data import render_csv, render_json
from harness.report.latex import render_latex
from harness.report.markdown import render_comment, render_markdown
from harness.report.speeds import render_pytest_benchmark
from harness.report.terminal import render_explanations, render_limits, render_terminal

__all__ = [
    "render_comment",
    "render_csv",
    "render_explanations",
    "render_json",
    "render_latex",
    "render_limits",
    "render_markdown",
    "render_pytest_benchmark",
    "render_terminal",
]
