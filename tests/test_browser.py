"""The site in a real Chromium: nothing complains or asks the internet, and pointer and keyboard both reach it all.

Skipped where there is no Chromium; `apt-get install chromium` brings one.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from harness.judge.judged import judged_tables
from harness.judge.verdict import Verdict
from harness.report import formatting
from harness.report.html.write import write_site
from harness.specs import Catalog
from harness.store.store import Store
from tests.sites import HOSTILE, figure, pages, relabelled, rendered
from tests.test_html import REFERENCE
from tests.test_report import MEASURED, SPEC, VERDICTS, diff_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH (`apt-get install chromium`)")

PLOTTED = 30_000  # milliseconds: the plotting library comes when it is needed, and takes seconds on a busy machine

WIDE, NARROW = (1280, 900), (320, 640)  # 320 pixels: 1280 at 400 %, the narrowest that WCAG asks for


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with every verdict, a figure, and table 5 as it was measured."""
    folder = tmp_path_factory.mktemp("site")
    shipped = judged_tables(Catalog().find(["table5", "figure1"]), None, Store(REFERENCE), None).diffs
    every = diff_of(folder, SPEC, dict(MEASURED), failed={("distilled", "speed"): "out of memory"})
    write_site(folder / "pages", rendered(figure(folder), every, *shipped, unused=("a file that is damaged",)))
    return folder / "pages"


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, site: Path) -> Iterator[Opened]:
    """Open a page; at the end, whatever was done there, nothing may have complained or asked the internet."""
    contexts, complaints = [], []

    def open_page(
        name: str,
        *,
        size: tuple[int, int] = WIDE,
        dark: bool = False,
        folder: Path = site,
        **settings: Any,  # noqa: ANN401 -- passed on
    ) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", **settings
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("requestfailed", lambda request: complaints.append(f"{request.failure}: {request.url}"))
        page.on("request", lambda request: complaints.append(request.url) if not local(request.url) else None)
        page.goto(f"{folder.as_uri()}/{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A page that is left while it loads gives up the rest.
    assert [item for item in complaints if "net::ERR_ABORTED: file:" not in item] == []


def local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


def cell(page: Page, row: int, column: int) -> Locator:
    return page.locator(f"#r{row}c{column} > button")


def why(page: Page, row: int, column: int) -> Locator:
    return page.locator(f"#r{row}c{column}w")


# All pages.


def test_every_page_loads_without_a_complaint_and_without_the_internet(site: Path, opened: Opened) -> None:
    names = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    tables, runs = ([name for name in names if name.startswith(part)] for part in ("tables/", "runs/"))
    assert (len(tables), len(runs) > 60) == (4, True)
    names = ["index.html", *tables, *runs[::4]]  # every fourth: each reads the plotting library anew
    page = opened("index.html")
    for name in names:
        page.goto(f"{site.as_uri()}/{name}")
        for plot in page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            expect(plot.locator("svg.main-svg").first).to_be_attached(timeout=PLOTTED)


def test_a_page_may_not_ask_the_internet_even_if_something_in_it_wanted_to(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    page.goto(f"{site.as_uri()}/index.html")
    refused = page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
            const image = document.createElement("img");
            image.src = "https://example.org/x.png";
            document.body.append(image);
        })"""
    )
    assert refused == "img-src"
    page.close()


def test_the_links_of_a_page_lead_to_its_runs_and_back(opened: Opened) -> None:
    page = opened("index.html")
    page.get_by_role("region", name="Table by table").get_by_role("link", name="Table 5").click()
    expect(page.locator("h1")).to_contain_text("Throughput and accuracy of models trained with no external data")
    cell(page, 1, 3).click()
    why(page, 1, 3).get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("throughput resnet18 at 224")
    page.get_by_role("link", name="Table 5: throughput of ResNet-18").click()
    expect(why(page, 1, 3)).to_be_visible()
    expect(cell(page, 1, 3)).to_be_focused()


@pytest.mark.parametrize("name", ["index.html", "tables/mine.html", "tables/figure7.html"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_page_is_accessible(opened: Opened, name: str, size: tuple[int, int], *, dark: bool) -> None:
    page = opened(name, size=size, dark=dark, bypass_csp=True)
    if name == "tables/mine.html" and size == WIDE:
        accessible_with_each_verdict_open(page)
    accessible(page)


def accessible_with_each_verdict_open(page: Page) -> None:
    assert set(VERDICTS.values()) == set(Verdict)
    for verdict in Verdict:
        button = page.locator(f"td[data-verdict='{verdict}']:not(.idle) > button").first
        page.keyboard.press("Escape")  # the reason of the cell before may lie over this one
        button.click()
        expect(button).to_have_attribute("aria-expanded", "true")
        accessible(page)


def accessible(page: Page) -> None:
    """Hold a page against axe's rules for WCAG 2.2, levels A and AA; contrast is one of them."""
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    actual = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}, "preload": False})
    assert [(item["id"], item["nodes"][0]["html"]) for item in actual.response["violations"]] == []
    assert "color-contrast" in {item["id"] for item in actual.response["passes"]}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_of_a_run_is_accessible(site: Path, opened: Opened, *, dark: bool) -> None:
    for name in sorted(path.name for path in (site / "runs").iterdir())[::30]:
        accessible(opened(f"runs/{name}", dark=dark, bypass_csp=True))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_lines_and_letters_of_a_figure_stand_out_from_the_page(opened: Opened, *, dark: bool) -> None:
    page = opened("tables/table5.html", dark=dark)
    ratios = page.evaluate(
        """() => {
            const probe = document.createElement("i");
            document.body.append(probe);
            const luminance = (name) => {
                probe.style.color = `var(${name})`;
                const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
                const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ground = luminance("--ground");
            const names = ["--text", "--dim", ...[1, 2, 3, 4, 5, 6, 7].map((n) => `--family-${n}`),
                "--bar-match", "--bar-noise", "--bar-deviates", "--bar-explained", "--bar-other"];
            return Object.fromEntries(names.map((name) => {
                const [low, high] = [ground, luminance(name)].sort((a, b) => a - b);
                return [name, (high + 0.05) / (low + 0.05)];
            }));
        }"""
    )
    assert all(ratio >= (4.5 if name in ("--text", "--dim") else 3) for name, ratio in ratios.items()), ratios


@pytest.mark.parametrize("name", ["index.html", "tables/mine.html", "tables/table5.html", "tables/figure1.html"])
def test_a_narrow_screen_needs_no_scrolling_sideways(opened: Opened, name: str) -> None:
    page = opened(name, size=NARROW)
    page.wait_for_load_state()
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW[0]


def test_on_a_narrow_screen_each_value_stands_beside_the_name_of_its_column(opened: Opened) -> None:
    page = opened("tables/mine.html", size=NARROW)
    first, verdict = page.locator("td[data-cell='r1c3']").first, page.locator("#r1c3")
    name = first.evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert (name, first.inner_text()) == ('"speed"', "1020 ± 10")
    above, below = first.bounding_box(), verdict.bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] + above["height"] <= below["y"] + 1
    assert max(box["x"] + box["width"] for box in (above, below)) <= NARROW[0]


# Reasons of cells.


def test_pointing_at_a_cell_shows_its_reason_and_leaving_it_hides_it(opened: Opened) -> None:
    page = opened("tables/mine.html")
    expect(why(page, 4, 2)).to_be_hidden()
    cell(page, 4, 2).hover()
    expect(why(page, 4, 2)).to_be_visible()
    expect(why(page, 4, 2)).to_contain_text("✗ deviates not within 1 M of the paper (86)")
    why(page, 4, 2).hover()  # the way to its link must not close it
    page.wait_for_timeout(400)
    expect(why(page, 4, 2)).to_be_visible()
    page.locator("h1").hover()
    expect(why(page, 4, 2)).to_be_hidden()
    page.locator("td[data-cell='r4c2']").first.hover()  # what was measured belongs to the same cell
    expect(why(page, 4, 2)).to_be_visible()


def test_a_click_keeps_a_reason_open_until_another_one_or_escape(opened: Opened) -> None:
    page = opened("tables/mine.html")
    cell(page, 3, 3).click()
    page.locator("h1").hover()
    page.wait_for_timeout(400)
    expect(why(page, 3, 3)).to_be_visible()
    cell(page, 1, 1).click()
    expect(why(page, 3, 3)).to_be_hidden()
    expect(why(page, 1, 1)).to_be_visible()
    page.keyboard.press("Escape")
    expect(why(page, 1, 1)).to_be_hidden()


def test_every_cell_tells_its_reason_when_it_is_clicked(opened: Opened) -> None:
    page = opened("tables/mine.html")
    for number, (_, verdict) in enumerate(VERDICTS.items()):
        row, column = divmod(number, 5)
        cell(page, row + 1, column + 1).click()
        shown = why(page, row + 1, column + 1)
        expect(shown).to_be_visible()
        if column:  # the first column is published for the reader
            expect(shown).to_contain_text(f"{formatting.SIGNS[Verdict(verdict)]} {verdict}")
        box = shown.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= WIDE[0]


def test_the_keyboard_reaches_every_cell_its_reason_and_its_run(opened: Opened) -> None:
    page = opened("tables/mine.html")
    cell(page, 1, 1).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    expect(cell(page, 2, 3)).to_be_focused()
    expect(why(page, 2, 3)).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(why(page, 2, 3)).to_be_hidden()
    page.keyboard.press("End")
    expect(cell(page, 2, 5)).to_be_focused()
    page.keyboard.press("ArrowRight")  # there is nothing further
    expect(cell(page, 2, 5)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(why(page, 2, 2)).to_be_visible()
    page.keyboard.press("Tab")
    expect(why(page, 2, 2).get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/runs/"))


def test_the_whole_table_is_one_stop_of_the_tab_key(opened: Opened) -> None:
    page = opened("tables/mine.html")
    stops = page.locator("table.paper button[tabindex='0']")
    expect(stops).to_have_count(1)
    cell(page, 2, 2).click()
    expect(stops).to_have_count(1)
    expect(cell(page, 2, 2)).to_have_attribute("tabindex", "0")


def test_without_javascript_a_click_still_opens_a_reason(opened: Opened) -> None:
    page = opened("tables/mine.html", java_script_enabled=False)
    cell(page, 4, 2).click()
    expect(why(page, 4, 2)).to_be_visible()
    expect(page.locator("td[data-row]")).to_have_count(len(VERDICTS))


# Sorting and searching.


def row_labels(page: Page) -> list[str]:
    """The rows of the table that are shown, from top to bottom."""
    return page.locator("table.paper tbody tr:not(.group):visible > th").all_inner_texts()


def test_a_heading_sorts_upwards_then_downwards_then_as_published(opened: Opened) -> None:
    page = opened("tables/table5.html")
    published = row_labels(page)
    heading = page.get_by_role("columnheader", name="#param., M: measured")
    expect(heading).not_to_have_attribute("aria-sort", re.compile("."))
    heading.get_by_role("button").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    # The smallest by their parameters; EfficientNet-B0 has 5.29 M.  Headings of groups would be wrong now.
    assert row_labels(page)[:2] == ["EfficientNet-B0", "DeiT-Ti"]
    expect(page.locator("tr.group:visible")).to_have_count(0)
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert row_labels(page)[0] == "ViT-L/16"
    other = page.get_by_role("columnheader", name="throughput, im/s, published: V100 16GB: measured")
    other.get_by_role("button").click()
    expect(page.locator("[aria-sort]")).to_have_count(1)
    assert row_labels(page)[:2] == ["KDforAA-B8", "ViT-L/16"]  # 0.69 and 0.73 im/s
    cell(page, 17, 3).press("ArrowDown")  # to the row below as the rows are shown
    expect(cell(page, 19, 3)).to_be_focused()
    for _ in range(2):
        other.get_by_role("button").click()
    assert row_labels(page) == published
    expect(page.locator("tr.group:visible")).to_have_count(2)


def test_a_search_leaves_the_rows_that_have_its_words_and_counts_them(opened: Opened) -> None:
    page = opened("tables/table5.html", bypass_csp=True)
    box = page.get_by_role("searchbox", name="Search the rows of Table 5")
    box.fill("EFFICIENTNET-b7")
    assert row_labels(page) == ["EfficientNet-B7", "EfficientNet-B7 RA"]
    expect(page.get_by_role("status")).to_have_text("2 of 32 rows")
    expect(page.locator("tr.group:visible")).to_have_text("Convnets")
    accessible(page)
    expect(page.locator("table.paper tr:visible button[tabindex='0']")).to_have_count(1)
    cell(page, 15, 1).press("ArrowDown")  # B5 RA is between the two and hidden
    expect(cell(page, 17, 1)).to_be_focused()
    box.fill("no such model")
    expect(page.get_by_role("status")).to_have_text("0 of 32 rows")
    page.evaluate("location.hash = 'r1c1'")  # a link to a cell that is hidden
    expect(why(page, 1, 1)).to_be_visible()
    expect(box).to_have_value("")
    assert len(row_labels(page)) == 32


def test_a_difference_is_sorted_by_its_size_and_not_by_its_words(opened: Opened) -> None:
    page = opened("tables/table5.html")
    page.get_by_role("columnheader", name="throughput, im/s, published: V100 16GB: Δ").get_by_role("button").click()
    shown = page.locator("table.paper tr:visible td.difference[data-cell$='c3']").all_inner_texts()
    factors = [float(text.removesuffix("× slower")) for text in shown]
    assert len(factors) == 32
    assert factors == sorted(factors, reverse=True)  # the slowest first


def test_what_nobody_measured_is_shown_on_request_and_where_a_link_leads_to_it(opened: Opened) -> None:
    page = opened("tables/table5.html")
    box = page.get_by_label("Show also what was not measured: ImNet top-1, Real top-1, V2 top-1")
    expect(page.locator("#r1c4")).to_be_hidden()
    cell(page, 1, 3).press("End")
    expect(cell(page, 1, 3)).to_be_focused()  # nothing is to the right
    box.check()
    expect(page.locator("#r1c4")).to_be_visible()
    expect(cell(page, 1, 4)).to_have_text("– missing")
    box.uncheck()
    page.evaluate("location.hash = 'r1c4'")
    expect(why(page, 1, 4)).to_be_visible()
    expect(box).to_be_checked()


def test_on_a_narrow_screen_the_headings_still_sort(opened: Opened) -> None:
    page = opened("tables/mine.html", size=NARROW)
    button = page.get_by_role("columnheader", name="#param., M: measured").get_by_role("button")
    expect(button).to_be_visible()
    button.click()
    assert row_labels(page) == ["ViT<tiny>", "CNN|small", "CNN[big]", "ViT⚗↑384"]


# The theme.


def test_the_theme_can_be_chosen_and_stays_chosen(opened: Opened) -> None:
    page = opened("index.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.locator("#theme")
    expect(button).to_have_text("Theme: auto")
    button.click()
    expect(button).to_have_text("Theme: light")
    button.click()
    expect(button).to_have_text("Theme: dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    button.click()
    assert page.evaluate(ground) == light


# The figure.


def drawn(page: Page) -> dict[str, list[list[float]]]:
    """The lines of the figure: what each is, and its points."""
    page.locator(".chart").scroll_into_view_if_needed()
    expect(page.locator(".chart svg.main-svg").first).to_be_attached(timeout=PLOTTED)
    actual: dict[str, list[list[float]]] = page.evaluate(
        """() => Object.fromEntries(document.querySelector(".chart .plot").data.map((trace) => {
            const { kind, points } = trace.meta;
            const name = kind.startsWith("front") ? kind : `${kind} ${points[0].family}`;
            return [name, trace.x.map((x, place) => [x, trace.y[place]])];
        }))"""
    )
    return actual


# By hand: of the published points d is behind b; ours have c slower than b, at the published accuracy.
ALL = {
    "published one": [[100, 70], [50, 80]],
    "published two": [[80, 75], [40, 78]],
    "front of published": [[50, 80], [80, 75], [100, 70]],
    "measured one": [[100, 70], [50, 80]],
    "measured two": [[20, 75]],
    "front of measured": [[50, 80], [100, 70]],
}


def test_the_figure_shows_both_kinds_of_points_and_both_pareto_fronts(opened: Opened) -> None:
    assert drawn(opened("tables/figure7.html")) == ALL


def test_the_filter_takes_a_family_out_of_the_points_and_of_the_fronts(opened: Opened) -> None:
    page = opened("tables/figure7.html")
    page.get_by_label("One", exact=True).uncheck()
    assert drawn(page) == {
        "published two": ALL["published two"],
        "front of published": [[40, 78], [80, 75]],
        "measured two": ALL["measured two"],  # one point is no front
    }
    page.get_by_label("One", exact=True).check()
    assert drawn(page) == ALL


def test_published_points_measured_points_and_fronts_can_be_left_out(opened: Opened) -> None:
    page = opened("tables/figure7.html")
    for label, left in (("published", "published"), ("measured", "measured"), ("Pareto fronts", "front")):
        page.get_by_label(label, exact=True).uncheck()
        assert drawn(page) == {name: points for name, points in ALL.items() if left not in name}
        page.get_by_label(label, exact=True).check()


def test_the_plotting_library_is_loaded_when_a_figure_comes_into_view_and_by_no_other_page(opened: Opened) -> None:
    loaded = "typeof Plotly !== 'undefined'"
    page = opened("index.html", size=NARROW)
    page.wait_for_load_state("networkidle")
    assert not page.evaluate(loaded)
    drawn(page)
    assert page.evaluate(loaded)
    page.goto(page.url.replace("index.html", "tables/table5.html"))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.scripts].map((script) => script.src.split('/').at(-1))") == ["site.js"]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_points_of_a_figure_have_names_as_far_as_there_is_room(opened: Opened, size: tuple[int, int]) -> None:
    page = opened("tables/figure1.html", size=size)
    drawn(page)
    names = page.locator(".names span")
    expect(names.first).to_be_attached()
    texts, boxes = names.all_inner_texts(), [each.bounding_box() for each in names.all()]
    edges = [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in boxes if box]
    assert len(edges) == len(texts) >= (24 if size == WIDE else 5)
    plot = page.locator(".chart .plot").bounding_box()
    assert plot is not None
    for number, (left, top, right, bottom) in enumerate(edges):
        assert plot["x"] <= left < right <= plot["x"] + plot["width"]
        assert not [
            (texts[number], other)
            for other, (x0, y0, x1, y1) in zip(texts[:number], edges, strict=False)
            if left < x1 and x0 < right and top < y1 and y0 < bottom
        ]
    if size == WIDE:  # the ends of the published front and of the measured one
        assert texts.count("Ours⚗: DeiT-B⚗↑384") == texts.count("EfficientNet: B0") == 2
    page.get_by_label("names").uncheck()
    expect(names).to_have_count(0)


def test_the_axis_is_logarithmic_until_it_is_asked_to_be_linear(opened: Opened) -> None:
    page = opened("tables/figure7.html")
    drawn(page)
    kind = "document.querySelector('.chart .plot')._fullLayout.xaxis.type"
    assert page.evaluate(kind) == "log"
    expect(page.locator(".chart .xtitle")).to_have_text("speed, im/s, log scale")
    page.get_by_label("log axis").uncheck()
    assert page.evaluate(kind) == "linear"
    expect(page.locator(".chart .xtitle")).to_have_text("speed, im/s")


def test_pointing_at_a_point_tells_what_it_is(opened: Opened) -> None:
    page = opened("tables/figure7.html")
    drawn(page)
    at = page.evaluate(
        """() => {
            const plot = document.querySelector(".chart .plot");
            const { xaxis, yaxis } = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(80), box.top + yaxis._offset + yaxis.d2p(75)];
        }"""
    )
    page.mouse.move(at[0] + 1, at[1] + 1)
    page.mouse.move(*at)
    expect(page.locator(".chart .hovertext")).to_have_text("cpublishedspeed: 80 im/stop-1: 75 %")
    page.mouse.click(*at)
    expect(page).to_have_url(re.compile("#r3c1$"))
    expect(why(page, 3, 1)).to_be_visible()


def test_the_keyboard_goes_from_point_to_point_and_to_the_cell(opened: Opened) -> None:
    page = opened("tables/figure7.html")
    drawn(page)
    page.locator(".chart .plot").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".chart .hovertext")).to_contain_text("speed: 100 im/s")
    expect(page.locator(".chart [aria-live]")).to_have_text("a; published; speed: 100 im/s; top-1: 70 %")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".chart [aria-live]")).to_have_text("b; published; speed: 50 im/s; top-1: 80 %")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#r2c1$"))


def test_the_raw_samples_of_a_run_are_drawn(site: Path, opened: Opened) -> None:
    page = opened("tables/table5.html#r1c3")
    why(page, 1, 3).get_by_role("link").click()
    page.locator(".samples").scroll_into_view_if_needed()
    expect(page.locator(".samples svg.main-svg").first).to_be_attached(timeout=PLOTTED)
    counts = page.evaluate("document.querySelector('.samples .plot').data.map((trace) => [trace.name, trace.x.length])")
    assert dict(counts)["timed"] == 30
    expect(page.locator(".samples .points path")).to_have_count(sum(n for name, n in counts if name != "mean"))


# Names.


def test_no_name_becomes_more_than_a_name(tmp_path: Path, opened: Opened) -> None:
    every = diff_of(tmp_path, SPEC, dict(MEASURED), failed={("distilled", "speed"): "out of memory"})
    files = rendered(relabelled(every, HOSTILE), relabelled(figure(tmp_path), HOSTILE), unused=(HOSTILE,))
    write_site(tmp_path / "pages", files)
    for name in sorted(pages(files)):
        page = opened(name, folder=tmp_path / "pages", size=NARROW)
        if page.locator(".chart").count():
            drawn(page)
            page.locator(".chart .plot").focus()
            page.keyboard.press("ArrowRight")
            expect(page.locator(".chart .hovertext")).to_contain_text("<b>bold</b><img src=x")
        assert page.evaluate("typeof window.hacked") == "undefined"
        assert page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW[0]
        page.close()  # many open pages with figures leave too little time to the last one


def test_very_long_names_do_not_push_a_page_apart(tmp_path: Path, opened: Opened) -> None:
    every = diff_of(tmp_path, SPEC, dict(MEASURED), failed={("distilled", "speed"): "out of memory"})
    files = rendered(relabelled(every, "x" * 500), relabelled(figure(tmp_path), "x" * 500))
    write_site(tmp_path / "pages", files)
    for name in sorted(pages(files)):
        for size in (WIDE, NARROW):
            page = opened(name, folder=tmp_path / "pages", size=size)
            assert page.evaluate("document.documentElement.scrollWidth") == size[0], name
            page.close()
