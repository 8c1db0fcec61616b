"""`Diff` -> text: terminal, Markdown, CSV, JSON.  Rendering is pure; only `cli` writes."""

from harness.report.data import render_csv, render_json
from harness.report.markdown import render_markdown
from harness.report.terminal import render_explanations, render_limits, render_terminal

__all__ = [
    "render_csv",
    "render_explanations",
    "render_json",
    "render_limits",
    "render_markdown",
    "render_terminal",
]
