"""The pictures of the manual: the table of a terminal, of a pull request and of a site, as they are shown today.

`python -m docs.pictures` draws them into docs/pictures/, with the packages of the tests and a Chromium on the PATH.  A
picture cannot be compared byte by byte, so sources.json keeps what each was drawn of, as a hash; tests/test_docs.py
fails while that and the program differ.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from markdown_it import MarkdownIt
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

from docs.generate import CPU_RESULTS, DOCS
from harness import atomic
from harness.judge.judged import judged_tables
from harness.judge.verdict import Diff
from harness.report import render_markdown, render_terminal
from harness.report.html import SiteContent, render_site
from harness.report.html.write import write_site
from harness.specs import Catalog
from harness.store.store import Store

FOLDER = DOCS / "pictures"
SOURCES = FOLDER / "sources.json"

# What `harness ab --markdown` wrote of two commits that were really compared.
COMMENT = DOCS.parent / "examples" / "pull_request_comment.md"

# GitHub's own sizes and margins, as far as they decide what is broken into lines and how high it is.
GITHUB = """
body { font: 16px/1.5 "Noto Sans", Helvetica, Arial, sans-serif; width: 780px; margin: 0; color: #1f2328 }
table { border-collapse: collapse; display: block; width: max-content; max-width: 100%; overflow: auto }
th, td { padding: 6px 13px; border: 1px solid #d1d9e0 }
pre { font: 85%/1.45 monospace; padding: 16px; overflow: auto; background: #f6f8fa }
pre code { font: inherit }
p, details, table, pre { margin: 0 0 16px }
"""

# Whether each figure that is in view, or about to be, is drawn: a page loads its plotting library only then.
DRAWN = """[...document.querySelectorAll(".plot")].every(
    (plot) => plot.querySelector("svg") || plot.getBoundingClientRect().top > innerHeight + 300)"""

DARK, LIGHT = MONOKAI, DEFAULT_TERMINAL_THEME


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a picture is drawn of: the text of a terminal with its colours, or a page."""

    source: str
    draw: Callable[["Picture", Path], None]
    size: tuple[int, int] = (0, 0)
    dark: bool = False


@cache
def _tables() -> Mapping[str, Diff]:
    diffs = judged_tables(Catalog().find(["table5", "figure1"]), None, Store(CPU_RESULTS), None).diffs
    return {diff.spec.name: diff for diff in diffs}


def pictures() -> Iterator[tuple[str, Picture]]:
    """Yield the name of each picture and what it is drawn of."""
    table = _tables()["table5"]
    for width, dark in ((60, True), (80, True), (80, False), (110, True), (160, True)):
        text = render_terminal(table, width=width, color=True)
        look = "dark" if dark else "light"
        yield f"terminal-{width}-{look}.svg", Picture(source=text, draw=_terminal, size=(width, 0), dark=dark)
    yield "github-780.png", Picture(source=render_markdown(table), draw=_github, size=(780, 1200))
    yield "comment-780.png", Picture(source=COMMENT.read_text(encoding="utf-8"), draw=_github, size=(780, 470))
    pages = render_site(SiteContent(diffs=tuple(_tables().values())))
    for name in ("index", "tables/table5"):
        for width, height, dark in ((1440, 1000, False), (390, 1200, True)):
            file = f"site-{name.rpartition('/')[2]}-{width}-{'dark' if dark else 'light'}.png"
            source = pages[f"{name}.html"] + pages["assets/style.css"]
            yield file, Picture(source=source, draw=_site(f"{name}.html"), size=(width, height), dark=dark)


def hashes() -> dict[str, str]:
    """Return the hash of what each picture is drawn of; how colours are coded differs from version to version."""
    sources = ((name, re.sub(r"\x1b\[[\d;]*m", "", picture.source)) for name, picture in pictures())
    return {name: hashlib.sha256(source.encode()).hexdigest() for name, source in sources}


def _terminal(picture: Picture, path: Path) -> None:
    console = Console(file=StringIO(), record=True, width=picture.size[0], force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(picture.source))
    theme: TerminalTheme = DARK if picture.dark else LIGHT
    svg = console.export_svg(title="harness report table5", theme=theme, unique_id="terminal")
    atomic.write(path, svg)


def _github(picture: Picture, path: Path) -> None:
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(picture.source)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(f"<!doctype html><meta charset=utf-8><style>{GITHUB}</style>{page}", encoding="utf-8")
        _shoot(file, path, picture)


def _site(name: str) -> Callable[[Picture, Path], None]:
    def draw(picture: Picture, path: Path) -> None:
        with TemporaryDirectory() as folder:
            write_site(Path(folder) / "site", render_site(SiteContent(diffs=tuple(_tables().values()))))
            _shoot(Path(folder) / "site" / name, path, picture)

    return draw


def _shoot(page: Path, path: Path, picture: Picture) -> None:
    """Take a picture of a page as it opens."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only who draws needs it

    browsers = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(browsers, None))
        width, height = picture.size
        tab = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if picture.dark else "light",
            bypass_csp=True,  # which forbids what waiting needs
        )
        tab.goto(page.as_uri())
        tab.wait_for_function(DRAWN)
        atomic.write(path, tab.screenshot())
        browser.close()


def main() -> int:
    """Draw every picture whose source has changed; the exit code is 0."""
    before = json.loads(SOURCES.read_text(encoding="utf-8")) if SOURCES.exists() else {}
    now = hashes()
    for name, picture in pictures():
        if before.get(name) != now[name] or not (FOLDER / name).exists():
            picture.draw(picture, FOLDER / name)
            print(f"drawn {name}")
    for path in FOLDER.glob("*.*"):
        if path.name not in {*now, SOURCES.name}:
            path.unlink()
    atomic.write(SOURCES, json.dumps(now, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
