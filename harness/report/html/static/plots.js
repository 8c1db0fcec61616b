// The figures: accuracy against throughput, and the raw samples of a run.
"use strict";
(() => {
  // The published points are hollow.  Each family has a marker of its own, so that no one needs the colours.
  const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  // It is 4 MB: a page loads it when its first figure comes into view, and no page waits for it.
  const LIBRARY = new URL("plotly.min.js", document.currentScript.src);
  let library = null;
  const loaded = () => library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: LIBRARY, onload: resolve, onerror: reject });
    document.head.append(script);
  });

  // Plotly reads text as a little HTML: names are to be shown as they are.
  const plain = (text) => String(text).replace(/\s+/g, " ").replace(/&/g, "&amp;").replace(/</g, "&lt;");

  // What is written along an axis or in the legend has no second line.
  const short = (text) => plain(text.length > 60 ? `${text.slice(0, 59)}…` : text);

  // A tooltip has: broken after a space where there is one.
  const folded = (text) => text.replace(/\s+/g, " ").match(/.{1,60}(?:\s|$)|.{1,60}/gu)?.map(plain).join("<br>") ?? "";

  // A colour of the style is `light-dark(…)`: only a computed one can be handed on.
  function color(name) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const computed = getComputedStyle(probe).color;
    probe.remove();
    return computed;
  }

  function layout(extra) {
    const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--dim"), automargin: true };
    const { xaxis, yaxis, ...rest } = extra;
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--text") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 60, r: 16, t: 16, b: 50 },
      hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--dim"), font: { color: color("--text") }, align: "left", namelength: 0 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--dim"), activecolor: color("--text") },
      xaxis: { ...axis, ...xaxis },
      yaxis: { ...axis, ...yaxis },
      ...rest,
    };
  }

  // Those that no other one beats on both axes, from left to right.
  function front(points, better) {
    const gain = (point, axis) => (better[axis] === "lower" ? -point[axis] : point[axis]);
    const beats = (one, other) =>
      gain(one, "x") >= gain(other, "x") && gain(one, "y") >= gain(other, "y") &&
      (gain(one, "x") > gain(other, "x") || gain(one, "y") > gain(other, "y"));
    return points.filter((point) => !points.some((other) => beats(other, point))).sort((a, b) => a.x - b.x);
  }

  // 1, 2 and 5 of every power of ten: Plotly's own choice of a few decades leaves the reader with bare digits.
  function ticks(points) {
    const positions = [];
    const values = points.map((point) => point.x).filter((x) => x > 0);
    if (!values.length) return positions;
    for (let power = Math.floor(Math.log10(Math.min(...values))); power <= Math.log10(Math.max(...values)) + 1; power++)
      for (const digit of [1, 2, 5]) positions.push(Number(`${digit}e${power}`));
    return positions;
  }

  function traces(data, choice) {
    const lines = [];
    const label = { published: data.published, measured: data.measured };
    for (const kind of ["published", "measured"]) {
      if (!choice.show.has(kind)) continue;
      data.families.forEach((family, number) => {
        if (!choice.families.has(family.key)) return;
        const points = data.points.filter((point) => point.kind === kind && point.family === family.key);
        if (!points.length) return;
        const hue = color(`--family-${(number % MARKERS.length) + 1}`);
        const marker = MARKERS[number % MARKERS.length];
        lines.push({
          name: `${short(family.label)}, ${short(label[kind])}`,
          x: points.map((point) => point.x),
          y: points.map((point) => point.y),
          text: points.map((point) => point.text.map(folded).join("<br>")),
          customdata: points.map((point) => point.link),
          meta: { kind, points },
          mode: "lines+markers",
          marker: { color: hue, size: 10, symbol: kind === "published" ? `${marker}-open` : marker, line: { width: 2, color: hue } },
          line: { color: hue, width: 1.2, dash: kind === "published" ? "dot" : "solid" },
          hovertemplate: "%{text}<extra></extra>",
        });
      });
      if (!choice.show.has("fronts") || !data.x.better || !data.y.better) continue;
      const shown = data.points.filter((point) => point.kind === kind && choice.families.has(point.family));
      const best = front(shown, { x: data.x.better, y: data.y.better });
      if (best.length < 2) continue;
      lines.push({
        name: `Pareto front, ${short(label[kind])}`,
        x: best.map((point) => point.x),
        y: best.map((point) => point.y),
        meta: { kind: `front of ${kind}`, points: best },
        mode: "lines",
        // A step: between two points of the front the one that is still good enough on x gives the y.
        line: { shape: data.x.better === "lower" ? "hv" : "vh", color: color("--dim"), width: kind === "published" ? 5 : 7, dash: kind === "published" ? "dash" : "solid" },
        opacity: 0.4,
        hoverinfo: "skip",
      });
    }
    return lines;
  }

  // The names of the points for which there is room: those of the fronts first, then the ends of the families' lines,
  // then the others.  A name is next to its point, off every other point and name, and within the figure.
  function names(plot) {
    const { xaxis, yaxis, _size: size, font } = plot._fullLayout;
    const at = ({ x, y }) => [xaxis.d2p(x), yaxis.d2p(y)];
    const [fronts, families] = [false, true].map((named) => plot.data.filter((trace) => Boolean(trace.customdata) === named));
    const onFront = new Set(fronts.flatMap((trace) => trace.meta.points));
    const spots = families.flatMap(({ meta, marker }) => meta.points.map((point, number) => ({
      name: point.row.length > 24 ? `${point.row.slice(0, 23)}…` : point.row,
      at: at(point),
      color: marker.color,
      rank: onFront.has(point) ? 0 : number && number < meta.points.length - 1 ? 2 : 1,
    }))).filter((spot) => within([...spot.at, ...spot.at]));
    // Every few pixels of the lines between points: better where none crosses the name.
    const onLines = families.flatMap(({ meta: { points } }) => points.slice(1).flatMap((point, number) => {
      const [[x0, y0], [x1, y1]] = [at(points[number]), at(point)];
      const steps = Math.ceil(Math.hypot(x1 - x0, y1 - y0) / 5);
      return Array.from({ length: steps }, (_, step) => [x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps]);
    }));
    const taken = spots.map(({ at: [x, y] }) => [x - 6, y - 6, x + 6, y + 6]);
    function within([left, top, right, bottom]) {
      return left >= 0 && top >= 0 && right <= xaxis._length && bottom <= yaxis._length;
    }
    const free = (box) => within(box) &&
      !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    const clear = (box) => free(box) && !onLines.some(([x, y]) => x > box[0] && x < box[2] && y > box[1] && y < box[3]);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `12px ${font.family}`;
    const roomy = xaxis._length > 500;
    return spots.filter(({ rank }) => roomy || rank < 2).sort((a, b) => a.rank - b.rank).flatMap(({ name, at: [x, y], color }) => {
      const width = pen.measureText(name).width + 4;
      const corners = [[8, -16], [8, 0], [-8 - width, -16], [-8 - width, 0], [-width / 2, -25], [-width / 2, 9]];
      const boxes = corners.map(([dx, dy]) => [x + dx, y + dy, x + dx + width, y + dy + 16]);
      const box = boxes.find(clear) ?? (roomy ? boxes.find(free) : null);
      if (!box) return [];
      taken.push(box);
      const label = document.createElement("span");
      label.textContent = name;
      Object.assign(label.style, { color, left: `${size.l + box[0]}px`, top: `${size.t + box[1]}px`, width: `${width}px` });
      return [label];
    });
  }

  function figure(element) {
    const data = JSON.parse(element.querySelector("script[type='application/json']").textContent);
    const plot = element.querySelector(".plot");
    const boxes = [...element.querySelectorAll("input[type=checkbox]")];
    const narrow = matchMedia("(max-width: 46rem)");

    function choice() {
      const on = boxes.filter((box) => box.checked);
      return {
        families: new Set(on.filter((box) => "family" in box.dataset).map((box) => box.dataset.family)),
        show: new Set(on.map((box) => box.dataset.show).filter(Boolean)),
      };
    }

    function draw() {
      const selection = choice();
      const log = selection.show.has("log");
      const all = data.points;
      const xaxis = { title: { text: short(data.x.label) + (log ? ", log scale" : "") }, type: log ? "log" : "linear" };
      if (log) Object.assign(xaxis, { tickmode: "array", tickvals: ticks(all), tickformat: "~g" });
      return Plotly.react(plot, traces(data, selection), layout({
        xaxis,
        yaxis: { title: { text: short(data.y.label) } },
        hovermode: "closest",
        showlegend: !narrow.matches,
        legend: { orientation: "h", y: -0.16, yanchor: "top", itemclick: false, itemdoubleclick: false },
      }), CONFIG);
    }

    // The point that the keyboard is at.
    let at = null;
    function step(by) {
      const lines = plot.data.flatMap((trace, curveNumber) =>
        trace.customdata ? trace.x.map((_, pointNumber) => ({ curveNumber, pointNumber })) : []);
      if (!lines.length) return;
      const here = at ? lines.findIndex((point) => point.curveNumber === at.curveNumber && point.pointNumber === at.pointNumber) : -1;
      at = lines[here < 0 ? (by > 0 ? 0 : lines.length - 1) : (here + by + lines.length) % lines.length];
      Plotly.Fx.hover(plot, [at]);
      element.querySelector("[aria-live]").textContent = plot.data[at.curveNumber].meta.points[at.pointNumber].text.join("; ");
    }

    for (const box of boxes) box.addEventListener("change", () => { at = null; draw(); });
    plot.addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight" || event.key === "ArrowDown") step(1);
      else if (event.key === "ArrowLeft" || event.key === "ArrowUp") step(-1);
      else if (event.key === "Escape") { Plotly.Fx.unhover(plot); at = null; return; }
      else if (event.key === "Enter" && at) location.href = plot.data[at.curveNumber].customdata[at.pointNumber];
      else return;
      event.preventDefault();
    });
    const overlay = document.createElement("div");
    overlay.className = "names";
    overlay.setAttribute("aria-hidden", "true"); // each point tells its name to the keyboard
    draw().then(() => {
      plot.on("plotly_click", (event) => {
        const link = event.points[0].customdata;
        if (link) location.href = link;
      });
      // Where there is room changes with the size of the figure and with what of it is shown.
      const update = () => overlay.replaceChildren(...(choice().show.has("names") ? names(plot) : []));
      plot.on("plotly_afterplot", update);
      plot.append(overlay);
      update();
    });
    return draw;
  }

  function samples(element) {
    const data = JSON.parse(element.querySelector("script[type='application/json']").textContent);
    const plot = element.querySelector(".plot");
    const unit = plain(data.unit);
    const count = (list, first) => list.map((_, number) => number + first);

    function draw() {
      const hue = color("--family-1");
      const dots = { mode: "markers", hovertemplate: `run %{x}: %{y:.5g} ${unit}<extra></extra>` };
      const lines = [{ ...dots, name: "timed", x: count(data.samples, 1), y: data.samples, marker: { color: hue, size: 8 } }];
      if (data.warmUp.length)
        lines.unshift({
          ...dots, name: "warm-up, not counted", x: count(data.warmUp, 1 - data.warmUp.length), y: data.warmUp,
          marker: { color: color("--dim"), size: 8, symbol: "circle-open", line: { width: 1.5 } },
        });
      lines.push({
        name: "mean", x: [1, data.samples.length], y: [data.mean, data.mean], mode: "lines",
        line: { color: color("--family-2"), width: 1.5, dash: "dash" }, hovertemplate: `mean %{y:.5g} ${unit}<extra></extra>`,
      });
      return Plotly.react(plot, lines, layout({
        xaxis: { title: { text: "run" }, zeroline: false },
        yaxis: { title: { text: unit }, rangemode: "tozero" },
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
        margin: { l: 60, r: 16, t: 36, b: 50 },
      }), CONFIG);
    }
    draw();
    return draw;
  }

  const draws = [];
  const inView = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      inView.unobserve(target);
      loaded().then(() => draws.push(target.matches(".chart") ? figure(target) : samples(target)));
    }
  }, { rootMargin: "300px" });
  // Not before the page is there: a script that is added earlier belongs to what the page waits for.
  addEventListener("load", () => document.querySelectorAll("figure:has(.plot)").forEach((each) => inView.observe(each)));
  const redraw = () => draws.forEach((draw) => draw());
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
