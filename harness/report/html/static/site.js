// What every page does: the theme, the reasons of cells by pointer and by keyboard, and tables that sort and search.
"use strict";
(() => {
  const THEMES = ["auto", "light", "dark"];

  // A browser may refuse to store anything for a page from the disk; then the theme lasts as long as the page.
  function storedTheme() {
    try {
      const stored = localStorage.getItem("harness-theme");
      return THEMES.includes(stored) ? stored : "auto";
    } catch {
      return "auto";
    }
  }

  function storeTheme(theme) {
    try {
      localStorage.setItem("harness-theme", theme);
    } catch {
      /* as above */
    }
  }

  function applyTheme(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new Event("themechange"));
  }

  let theme = storedTheme();
  applyTheme(theme); // before the body is there, so that nothing flashes

  function offerThemes() {
    const button = document.getElementById("theme");
    const showTheme = () => { button.textContent = `Theme: ${theme}`; };
    button.hidden = false;
    showTheme();
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      storeTheme(theme);
      applyTheme(theme);
      showTheme();
    });
  }

  // The reason of one cell is shown at a time; a click or Enter pins it until the next, or Escape.
  let shown = null;
  let pinned = false;
  let timer = 0;

  const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

  const isShown = (element) => element.checkVisibility();
  const whyOf = (cell) => cell.querySelector(".why");
  const buttonOf = (cell) => cell.querySelector("button");

  function position(cell) {
    const why = whyOf(cell);
    const at = buttonOf(cell).getBoundingClientRect();
    const { width, height } = why.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left), Math.max(8, document.documentElement.clientWidth - width - 8));
    const below = at.bottom + 4;
    const top = below + height < innerHeight - 8 ? below : Math.max(8, at.top - height - 4);
    why.style.left = `${left}px`;
    why.style.top = `${top}px`;
  }

  function hide() {
    clearTimeout(timer);
    if (shown) {
      if (whyOf(shown).matches(":popover-open")) whyOf(shown).hidePopover();
      buttonOf(shown).setAttribute("aria-expanded", "false");
    }
    shown = null;
    pinned = false;
  }

  function show(cell) {
    clearTimeout(timer);
    if (shown !== cell) {
      hide();
      whyOf(cell).showPopover();
      buttonOf(cell).setAttribute("aria-expanded", "true");
      shown = cell;
    }
    position(cell);
  }

  function move(cell, key) {
    if (!KEYS.includes(key)) return null;
    const rows = [...cell.closest("table").querySelectorAll("tbody tr:not(.group)")].filter(isShown);
    const cellsOf = (row) => [...row.querySelectorAll("td[id]")].filter(isShown);
    const row = rows.indexOf(cell.parentElement);
    const column = cellsOf(rows[row]).indexOf(cell);
    const across = { ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0;
    const down = { ArrowUp: -1, ArrowDown: 1 }[key] ?? 0;
    let next = rows[row + down] && cellsOf(rows[row + down])[column + across];
    if (key === "Home") next = cellsOf(rows[row])[0];
    if (key === "End") next = cellsOf(rows[row]).at(-1);
    return next;
  }

  function makeTabStop(cell, others) {
    for (const other of others) buttonOf(other).tabIndex = -1;
    buttonOf(cell).tabIndex = 0;
  }

  function explainCells(table) {
    const cells = [...table.querySelectorAll("td[id]")];
    if (!cells.length) return;
    makeTabStop(cells.find(isShown) ?? cells[0], cells); // one stop of the Tab key for the whole table
    for (const cell of cells) {
      const button = buttonOf(cell);
      button.setAttribute("aria-expanded", "false");
      const others = [...cell.parentElement.cells].filter((other) => other.dataset.cell === cell.id);
      for (const other of others) other.addEventListener("click", () => button.click());
      for (const part of [cell, ...others]) {
        part.addEventListener("pointerenter", (event) => {
          if (event.pointerType !== "mouse" || pinned) return;
          clearTimeout(timer);
          timer = setTimeout(show, 80, cell);
        });
        part.addEventListener("pointerleave", (event) => {
          if (event.pointerType !== "mouse" || pinned) return;
          clearTimeout(timer);
          timer = setTimeout(hide, 150); // time to move from the cell to its reason
        });
      }
      // The reason is a child of the cell, so the pointer over it is still within the cell.
      button.addEventListener("click", (event) => {
        event.preventDefault(); // the button's own opening and closing serves where there is no script
        const unpin = shown === cell && pinned;
        hide();
        if (unpin) return;
        show(cell);
        pinned = true;
        makeTabStop(cell, cells);
      });
      button.addEventListener("focus", () => {
        makeTabStop(cell, cells);
        if (button.matches(":focus-visible") && !pinned) show(cell);
      });
      cell.addEventListener("focusout", (event) => {
        if (shown === cell && !pinned && !cell.contains(event.relatedTarget)) hide();
      });
      button.addEventListener("keydown", (event) => {
        const next = move(cell, event.key);
        if (!next) return;
        event.preventDefault();
        hide();
        buttonOf(next).focus();
      });
    }
  }

  function showTarget() {
    const cell = document.getElementById(location.hash.slice(1));
    if (!cell?.matches("td[id]")) return;
    if (!isShown(cell)) cell.dispatchEvent(new Event("reveal", { bubbles: true }));
    buttonOf(cell).focus({ preventScroll: true });
    cell.scrollIntoView({ block: "center" });
    show(cell);
    pinned = true;
  }

  // Tables that can be sorted by a heading and searched.  A table of a few rows is seen at a glance.
  const LEAST_SORTED = 3;
  const LEAST_SEARCHED = 8;

  // What a cell is sorted by: what the page says it is, or its number, or its text.
  function keyOf(cell) {
    const text = (cell?.dataset.sort ?? (cell?.querySelector("button") ?? cell)?.textContent ?? "").trim();
    const number = text.replace(/−/g, "-").match(/^[+-]?\d[\d,]*(\.\d+)?(e[+-]\d+)?/);
    return number ? Number(number[0].replace(/,/g, "")) : /^(|–|nothing published)$/.test(text) ? null : text.toLowerCase();
  }

  // Numbers before texts; what is empty comes last, in either direction.
  function inOrder(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  }

  // The heading of each column: the lowest one, where a heading may be over several.
  function headingsOf(table) {
    const lines = [...table.tHead.rows].map(() => []);
    [...table.tHead.rows].forEach((row, number) => {
      for (const cell of row.cells) {
        const at = [...lines[number], null].findIndex((other) => !other);
        for (let down = 0; down < cell.rowSpan; down++)
          for (let across = 0; across < cell.colSpan; across++) lines[number + down][at + across] = cell;
      }
    });
    return lines.at(-1);
  }

  function arrange(table) {
    const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
    const groupOf = new Map(bodies.flatMap(([, rows]) => rows.map((row) => [row, rows.find((each) => each.matches(".group"))])));
    const rows = [...groupOf.keys()].filter((row) => !row.matches(".group"));
    const columns = headingsOf(table);
    const headings = columns.filter((each) => each.matches("th"));
    const words = new Map(rows.map((row) => {
      const shown = [groupOf.get(row), ...row.cells].map((part) => (part?.querySelector("button") ?? part)?.textContent);
      return [row, shown.join(" ").toLowerCase()];
    }));
    let sorted = false;

    function search(query, status) {
      const asked = query.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = false;
      const offered = rows.filter(isShown);
      for (const row of rows) row.hidden = !asked.every((word) => words.get(row).includes(word));
      const shown = offered.filter((row) => !row.hidden);
      for (const [, all] of bodies) for (const row of all)
        if (row.matches(".group")) row.hidden = sorted || !shown.some((each) => groupOf.get(each) === row);
      if (status) status.textContent = asked.length ? `${shown.length} of ${offered.length} rows` : "";
      const cells = [...table.querySelectorAll("td[id]")];
      const visible = cells.filter(isShown);
      if (visible.length && !visible.some((cell) => buttonOf(cell).tabIndex === 0)) makeTabStop(visible[0], cells);
    }

    function sort(heading) {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.ariaSort ?? "none"];
      for (const other of headings) other.ariaSort = null;
      sorted = next !== "none";
      if (sorted) heading.ariaSort = next;
      const at = columns.indexOf(heading);
      const keys = new Map(rows.map((row) => [row, keyOf(row.cells[at])]));
      if (!sorted) for (const [body, all] of bodies) body.append(...all);
      else bodies[0][0].append(...[...rows].sort((a, b) => inOrder(keys.get(a), keys.get(b), next === "ascending" ? 1 : -1)));
    }

    let input = null;
    let status = null;
    const everything = document.querySelector(".everything");
    everything?.addEventListener("change", () => search(input?.value ?? "", status));
    table.addEventListener("reveal", ({ target }) => {
      if (input) input.value = "";
      search("", status);
      if (everything && !isShown(target)) everything.click();
    });
    if (rows.length >= LEAST_SEARCHED) {
      const box = table.closest(".scroll");
      const tools = document.createElement("p");
      const label = document.createElement("label");
      input = document.createElement("input");
      status = document.createElement("output");
      input.type = "search";
      tools.className = "tools";
      label.append("Search the rows ", input);
      input.setAttribute("aria-label", `Search the rows of ${box.getAttribute("aria-label")}`);
      tools.append(label, " ", status);
      box.before(tools);
      input.addEventListener("input", () => search(input.value, status));
    }
    if (rows.length < LEAST_SORTED) return;
    for (const heading of headings) {
      if (rows.every((row) => keyOf(row.cells[columns.indexOf(heading)]) === null)) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort: upwards, downwards, as published";
      if (heading.dataset.of) button.setAttribute("aria-label", `${heading.dataset.of}: ${heading.textContent}`);
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => { sort(heading); search(input?.value ?? "", status); });
    }
  }

  // A table that fits needs no scrolling of its own, and then its headings can stay in sight.
  function fit(box) {
    const update = () => {
      box.classList.remove("fits");
      box.classList.toggle("fits", box.scrollWidth <= box.clientWidth);
    };
    new ResizeObserver(update).observe(box.parentElement);
    update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    offerThemes();
    document.querySelectorAll(".wide").forEach(fit);
    document.querySelectorAll("table.paper").forEach(explainCells);
    document.querySelectorAll("table").forEach(arrange);
  });
  // Not before: the browser's own scrolling to the target takes the focus away once more.
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(showTarget)));
  addEventListener("hashchange", showTarget);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const back = shown?.contains(document.activeElement) ? buttonOf(shown) : null;
    hide();
    document.querySelectorAll("details.contents[open]").forEach((menu) => { menu.open = false; });
    back?.focus({ focusVisible: false });
  });
  document.addEventListener("pointerdown", (event) => {
    if (shown && !shown.contains(event.target)) hide();
    document.querySelectorAll("details.contents[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  addEventListener("scroll", () => { if (shown && pinned) position(shown); else hide(); }, { passive: true });
})();
