
// The script of the report: curves as SVG, and sliders for image grids, without libraries.
// Texts of a run are only ever set as textContent or attributes, never parsed as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("curves-data").textContent);
  const HEIGHT = 230;
  const MARGIN = { left: 58, right: 12, top: 8, bottom: 34 };
  const COLORS = 6;
  const DASHES = ["", "7 4", "2 3"]; // for runs beyond the sixth, which reuse colours
  const MAX_IN_TIP = 10;
  const options = { logX: false, logY: false, skipStart: false };

  // ---- Elements ----------------------------------------------------------------------------------------------------

  function element(name, attributes = {}, text = "") {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  function shape(name, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  // ---- Numbers -----------------------------------------------------------------------------------------------------

  function format(value) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
    return value.toLocaleString("en", { maximumSignificantDigits: Math.max(4, Math.ceil(Math.log10(size)) + 1) });
  }

  // Tick labels have as many decimals as their spacing needs.
  function tickLabel(value, step) {
    const size = Math.abs(value);
    if (value !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(0);
    const decimals = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }

  // A scale maps values to pixels and has ticks.
  function linearScale(low, high, from, to, count, whole) {
    if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999);
    if (whole) step = Math.max(1, Math.round(step));
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(i * step + 0); // + 0: no -0
    const scale = (value) => from + ((value - low) / (high - low)) * (to - from);
    return { scale, ticks, label: (value) => tickLabel(value, step) };
  }

  function logScale(low, high, from, to) {
    if (low === high) [low, high] = [low / 2, high * 2];
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const factors = b - a > 2.5 ? [1] : [1, 2, 5];
    let ticks = [];
    for (let power = Math.floor(a); power <= b; power += 1)
      for (const factor of factors) ticks.push(factor * 10 ** power);
    ticks = ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    const inner = linearScale(low, high, from, to, 4);
    if (ticks.length < 2) ticks = inner.ticks.filter((tick) => tick > 0);
    const scale = (value) => from + ((Math.log10(value) - a) / (b - a)) * (to - from);
    return { scale, ticks, label: (value) => format(value) };
  }

  // ---- Series: one split of one run --------------------------------------------------------------------------------

  const single = data.runs.length === 1;
  const series = [];
  data.runs.forEach((run, number) => {
    for (const split of ["valid", "train"]) {
      if (!run[split] || !run[split].epoch) continue;
      const color = single ? (split === "valid" ? 0 : 1) : number % COLORS;
      series.push({
        name: single ? { valid: "validation", train: "training" }[split] : `${run.name} ${split}`,
        run: number,
        split,
        columns: run[split],
        color: `var(--c${color})`,
        dash: single ? "" : DASHES[Math.floor(number / COLORS) % DASHES.length],
        thin: !single && split === "train",
        shown: single || split === "valid" || !(run.valid && run.valid.epoch),
      });
    }
  });
  const lastEpoch = Math.max(1, ...series.flatMap((one) => one.columns.epoch.filter((epoch) => epoch !== null)));

  // ---- Charts ------------------------------------------------------------------------------------------------------

  class Chart {
    constructor(metric) {
      this.metric = metric;
      this.figure = element("figure", { class: "chart" });
      const title = element("h4", {}, metric.title);
      if (metric.unit) title.append(element("small", {}, ` ${metric.unit}`));
      this.scaleNote = element("small");
      title.append(this.scaleNote);
      this.svg = shape("svg", { height: HEIGHT, role: "img", tabindex: "0" });
      this.tip = element("div", { class: "tip", "aria-hidden": "true" });
      this.tip.hidden = true;
      this.figure.append(title, this.svg, this.tip);
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerdown", (event) => this.point(event));
      this.svg.addEventListener("pointerleave", () => mark(null));
      this.svg.addEventListener("blur", () => mark(null));
      this.svg.addEventListener("keydown", (event) => this.key(event));
    }

    // Points [epoch, value] of every visible series; a gap in the values is left out.
    lines() {
      const start = options.skipStart ? lastEpoch / 10 : -Infinity;
      return series
        .filter((one) => one.shown && Object.hasOwn(one.columns, this.metric.key)) // a metric may be called __proto__
        .map((one) => {
          const points = one.columns.epoch
            .map((epoch, i) => [epoch, one.columns[this.metric.key][i]])
            .filter(([x, y]) => x !== null && y !== null && x > start && !(options.logX && x <= 0));
          return { one, points };
        })
        .filter((line) => line.points.length);
    }

    draw() {
      this.width = this.svg.clientWidth || this.figure.clientWidth;
      this.svg.replaceChildren();
      this.marks = shape("g");
      this.drawn = this.lines();
      const points = this.drawn.flatMap((line) => line.points);
      if (!points.length || !this.width) return;
      const range = (index) => [Math.min(...points.map((p) => p[index])), Math.max(...points.map((p) => p[index]))];
      const [[x0, x1], [y0, y1]] = [range(0), range(1)];
      const canLog = options.logY && y0 > 0;
      this.scaleNote.textContent = options.logY && !canLog ? " (not logarithmic: has values ≤ 0)" : "";
      const pad = canLog ? 0 : (y1 - y0) * 0.04;
      const [left, right] = [MARGIN.left, this.width - MARGIN.right];
      const [bottom, top] = [HEIGHT - MARGIN.bottom, MARGIN.top];
      this.x = options.logX ? logScale(x0, x1, left, right) : linearScale(x0, x1, left, right, this.width / 90, true);
      this.y = canLog ? logScale(y0, y1, bottom, top) : linearScale(y0 < 0 ? y0 - pad : Math.max(0, y0 - pad), y1 + pad, bottom, top, 5);
      this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
      this.svg.setAttribute("aria-label", this.describe());
      this.axes(left, right, bottom, top);
      for (const { one, points: line } of this.drawn) {
        const path = line.map(([x, y], i) => `${i ? "L" : "M"}${this.x.scale(x).toFixed(1)} ${this.y.scale(y).toFixed(1)}`);
        if (line.length === 1) path.push("h3");
        this.svg.append(
          shape("path", {
            d: path.join(""),
            style: `stroke: ${one.color}`,
            "stroke-dasharray": one.dash,
            class: one.thin ? "thin" : "",
          }),
        );
      }
      this.svg.append(this.marks);
    }

    axes(left, right, bottom, top) {
      for (const tick of this.y.ticks) {
        const y = this.y.scale(tick);
        this.svg.append(shape("line", { x1: left, x2: right, y1: y, y2: y, class: "grid" }));
        this.svg.append(shape("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, this.y.label(tick)));
      }
      for (const tick of this.x.ticks) {
        const x = this.x.scale(tick);
        this.svg.append(shape("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "grid" }));
        this.svg.append(shape("text", { x, y: bottom + 17, "text-anchor": "middle" }, this.x.label(tick)));
      }
      this.svg.append(shape("text", { x: right, y: HEIGHT - 2, "text-anchor": "end" }, "epoch"));
    }

    // The text for screen readers.
    describe() {
      const texts = this.drawn.slice(0, MAX_IN_TIP).map(({ one, points }) => {
        const [[x0, y0], [x1, y1]] = [points[0], points[points.length - 1]];
        return `${one.name} from ${format(y0)} at epoch ${x0} to ${format(y1)} at epoch ${x1}`;
      });
      return `${this.metric.title} by epoch: ${texts.join("; ")}. Arrow keys read the values.`;
    }

    epochs() {
      return [...new Set(this.drawn.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
    }

    point(event) {
      if (!this.drawn || !this.drawn.length) return;
      const box = this.svg.getBoundingClientRect();
      const at = event.clientX - box.left;
      const distance = (epoch) => Math.abs(this.x.scale(epoch) - at);
      const nearest = this.epochs().reduce((best, epoch) => (distance(epoch) < distance(best) ? epoch : best));
      mark(nearest, this, event.clientY - box.top);
    }

    key(event) {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || !this.drawn.length) return;
      event.preventDefault();
      const epochs = this.epochs();
      const here = epochs.indexOf(this.marked);
      const next = here < 0 ? epochs.length - 1 : here + steps[event.key];
      mark(epochs[Math.min(Math.max(next, 0), epochs.length - 1)], this, HEIGHT / 2, true);
    }

    // Marks an epoch with a line and dots; the chart under the pointer also shows the values.
    mark(epoch, pointed, height, aloud) {
      this.marked = epoch;
      this.tip.hidden = true;
      if (!this.marks) return;
      this.marks.replaceChildren();
      if (epoch === null || !this.drawn.length) return;
      const hits = this.drawn.flatMap(({ one, points }) =>
        points.filter(([x]) => x === epoch).map(([, value]) => ({ one, value, y: this.y.scale(value) })),
      );
      if (!hits.length) return;
      const x = this.x.scale(epoch);
      this.marks.append(shape("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "cross" }));
      for (const hit of hits)
        this.marks.append(shape("circle", { cx: x, cy: hit.y, r: 3.5, style: `fill: ${hit.one.color}` }));
      if (!pointed) return;
      const near = hits.sort((a, b) => Math.abs(a.y - height) - Math.abs(b.y - height)).slice(0, MAX_IN_TIP);
      near.sort((a, b) => a.y - b.y);
      this.tip.replaceChildren(element("b", {}, `epoch ${epoch}`));
      for (const { one, value } of near) {
        const line = element("span");
        line.append(swatch(one), element("span", {}, `${one.name} ${format(value)}`));
        this.tip.append(line);
      }
      this.tip.hidden = false;
      const width = this.tip.offsetWidth;
      this.tip.style.left = `${x + 12 + width > this.width ? Math.max(0, x - 12 - width) : x + 12}px`;
      this.tip.style.top = `${this.svg.getBoundingClientRect().top - this.figure.getBoundingClientRect().top + MARGIN.top}px`;
      if (aloud) {
        const values = near.map(({ one, value }) => `${one.name} ${format(value)}`);
        document.getElementById("reading").textContent = `epoch ${epoch}: ${values.join(", ")}`;
      }
    }
  }

  let charts = [];

  function mark(epoch, pointed = null, height = 0, aloud = false) {
    for (const chart of charts) chart.mark(epoch, chart === pointed, height, aloud);
  }

  function redraw() {
    for (const chart of charts) chart.draw();
  }

  function swatch(one) {
    const style = `border-color: ${one.color}; border-top-style: ${one.dash ? "dashed" : "solid"}`;
    return element("span", { class: one.thin ? "swatch thin" : "swatch", style });
  }

  function checkbox(label, checked, swatch, onChange) {
    const box = element("input", { type: "checkbox" });
    box.checked = checked;
    box.addEventListener("change", () => onChange(box.checked));
    const made = element("label");
    made.append(box, ...(swatch ? [swatch] : []), element("span", {}, label));
    return made;
  }

  function buildLegend(legend) {
    if (single) {
      for (const one of series)
        legend.append(checkbox(one.name, true, swatch(one), (on) => { one.shown = on; redraw(); }));
      return;
    }
    const shown = { runs: new Set(data.runs.keys()), train: false };
    const update = () => {
      const hasValid = series.some((one) => one.split === "valid");
      for (const one of series) one.shown = shown.runs.has(one.run) && (one.split === "valid" || shown.train || !hasValid);
      redraw();
    };
    data.runs.forEach((run, number) => {
      const one = series.find((candidate) => candidate.run === number);
      if (!one) return;
      const toggle = (on) => { shown.runs[on ? "add" : "delete"](number); update(); };
      legend.append(checkbox(run.name, true, swatch({ ...one, thin: false }), toggle));
    });
    legend.append(checkbox("also training (thin)", false, null, (on) => { shown.train = on; update(); }));
  }

  function buildCharts() {
    const section = document.getElementById("curves");
    if (!section) return;
    buildLegend(document.getElementById("legend"));
    charts = data.metrics.map((metric) => new Chart(metric));
    for (const chart of charts)
      document.getElementById(chart.metric.main ? "charts" : "more-charts").append(chart.figure);
    const more = document.getElementById("more");
    more.hidden = charts.every((chart) => chart.metric.main);
    more.addEventListener("toggle", redraw);
    const form = section.querySelector("form");
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const name of Object.keys(options))
      form.elements[name].addEventListener("change", (event) => { options[name] = event.target.checked; redraw(); });
    window.addEventListener("resize", redraw);
    redraw();
  }

  // ---- Sliders over image grids ------------------------------------------------------------------------------------

  for (const box of document.querySelectorAll("[data-frames]")) {
    const slider = box.querySelector("input[type=range]");
    if (!slider) continue;
    const frames = [...box.querySelectorAll(".frame")];
    const show = () => {
      frames.forEach((frame, number) => { frame.hidden = number !== Number(slider.value); });
      const label = frames[Number(slider.value)].dataset.label;
      box.querySelector("output").textContent = label;
      slider.setAttribute("aria-valuetext", label);
    };
    slider.addEventListener("input", show);
    show(); // a browser may restore the slider's position when the page is loaded again
  }

  // A link to a run opens its section.
  function openTarget() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();
  buildCharts();
})();
