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
    const rows = [...cell.closest("table").querySelectorAll("tbody tr:not(.group, [hidden])")];
    const cellsOf = (row) => [...row.querySelectorAll("td[id]")];
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
    makeTabStop(cells[0], cells); // one stop of the Tab key for the whole table
    for (const cell of cells) {
      const button = buttonOf(cell);
      button.setAttribute("aria-expanded", "false");
      cell.addEventListener("pointerenter", (event) => {
        if (event.pointerType !== "mouse" || pinned) return;
        clearTimeout(timer);
        timer = setTimeout(show, 80, cell);
      });
      cell.addEventListener("pointerleave", (event) => {
        if (event.pointerType !== "mouse" || pinned) return;
        clearTimeout(timer);
        timer = setTimeout(hide, 150); // time to move from the cell to its reason
      });
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
    cell.closest("table").dispatchEvent(new Event("showall")); // the search may have hidden it
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
    const text = (cell?.dataset.sort ?? (cell?.querySelector("button > span") ?? cell)?.textContent ?? "").trim();
    const number = text.replace(/−/g, "-").match(/^[+-]?\d[\d,]*(\.\d+)?/);
    return number ? Number(number[0].replace(/,/g, "")) : /^[–-]?$/.test(text) ? null : text.toLowerCase();
  }

  // Numbers before texts; what is empty comes last, in either direction.
  function inOrder(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  }

  function arrange(table) {
    const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
    const groupOf = new Map(bodies.flatMap(([, rows]) => rows.map((row) => [row, rows.find((each) => each.matches(".group"))])));
    const rows = [...groupOf.keys()].filter((row) => !row.matches(".group"));
    const headings = [...table.querySelectorAll("thead th")];
    const words = new Map(rows.map((row) => {
      const shown = [groupOf.get(row), ...row.cells].map((part) => (part?.querySelector("button") ?? part)?.textContent);
      return [row, shown.join(" ").toLowerCase()];
    }));
    let sorted = false;

    function search(query, status) {
      const asked = query.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !asked.every((word) => words.get(row).includes(word));
      const shown = rows.filter((row) => !row.hidden);
      for (const [, all] of bodies) for (const row of all)
        if (row.matches(".group")) row.hidden = sorted || !shown.some((each) => groupOf.get(each) === row);
      if (status) status.textContent = asked.length ? `${shown.length} of ${rows.length} rows` : "";
      const first = shown.flatMap((row) => [...row.querySelectorAll("td[id]")])[0];
      if (first && !table.querySelector("tr:not([hidden]) > td[id] > button[tabindex='0']"))
        makeTabStop(first, table.querySelectorAll("td[id]"));
    }

    function sort(heading) {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.ariaSort ?? "none"];
      for (const other of headings) other.ariaSort = null;
      sorted = next !== "none";
      if (sorted) heading.ariaSort = next;
      const at = heading.cellIndex;
      const keys = new Map(rows.map((row) => [row, keyOf(row.cells[at])]));
      if (!sorted) for (const [body, all] of bodies) body.append(...all);
      else bodies[0][0].append(...[...rows].sort((a, b) => inOrder(keys.get(a), keys.get(b), next === "ascending" ? 1 : -1)));
    }

    let input = null;
    let status = null;
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
      table.addEventListener("showall", () => { input.value = ""; search("", status); });
    }
    if (rows.length < LEAST_SORTED) return;
    for (const heading of headings) {
      if (rows.every((row) => keyOf(row.cells[heading.cellIndex]) === null)) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort: upwards, downwards, as published";
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
