"use strict";
// Draws what needs the width of the window or the reader's hand; every figure is already in the
// page. Nothing is fetched.
(() => {
const report = JSON.parse(document.getElementById("report-json").textContent);
const time   = JSON.parse(document.getElementById("timeline-json").textContent);
const root   = document.documentElement;
const byId   = (id) => document.getElementById(id);
const all    = (selector) => [...document.querySelectorAll(selector)];
const number = new Intl.NumberFormat("en-US");
const whole  = (value) => number.format(Math.round(value));
const CLASS_NAMES = {program: "program", weights: "weights", frame: "frame", spill: "spilled maps",
                     alpha: "attention maps", mask: "mask"};

// Light and dark: the system's choice until the button is used.
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
function theme() {
  root.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
  colours = {};
}
let colours = {};
function colour(name) {
  return colours[name] ??= getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}
dark.addEventListener("change", () => { theme(); drawAll(); });
byId("theme").addEventListener("click", () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  theme(); drawAll();
});
let before = null;
addEventListener("beforeprint", () => { before = chosen; chosen = "light"; theme(); drawAll(680); });
addEventListener("afterprint", () => { chosen = before; theme(); drawAll(); });

// One tooltip for everything.
const tip = byId("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - box.width - 8))}px`;
  tip.style.top  = `${y + 16 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 16}px`;
}
const hideTip = () => { tip.hidden = true; };
for (const element of all("[data-tip]")) {
  element.addEventListener("pointermove", (e) => showTip(element.dataset.tip, e.clientX, e.clientY));
  element.addEventListener("pointerleave", hideTip);
  element.addEventListener("focus", () => {
    const box = element.getBoundingClientRect();
    showTip(element.dataset.tip, box.left, box.bottom);
  });
  element.addEventListener("blur", hideTip);
}
for (const word of all("a.word")) {
  word.dataset.meaning = word.title;
  word.addEventListener("click", (e) => {
    e.preventDefault();
    e.stopPropagation();
    const box = word.getBoundingClientRect();
    showTip(word.dataset.meaning, box.left, box.bottom - 10);
  });
  word.addEventListener("blur", hideTip);
}
document.addEventListener("click", hideTip);
addEventListener("scroll", hideTip, {passive: true});

byId("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(report, null, 2) + "\n"],
                                           {type: "application/json"}));
  link.download = "report.json";
  link.click();
  URL.revokeObjectURL(link.href);
});

// Plots over time share one window of cycles.
const view = {from: 0, to: time.cycles};
const rows = time.rows.map((row) => {
  const slices = [];
  let end = 0;
  for (let k = 0; k < row.slices.length; k += 5) {
    const [gap, length, layer, line, operation] = row.slices.slice(k, k + 5);
    slices.push({from: end + gap, to: end + gap + length, layer, line, operation});
    end += gap + length;
  }
  return {...row, slices};
});
const occupancy = (() => {
  const cycles = [...new Set(time.blocks.flatMap((block) => [block.first, block.last]))].sort((a, b) => a - b);
  return cycles.map((from, k) => ({from, to: cycles[k + 1] ?? from, live: time.blocks
    .filter((block) => block.first <= from && from < block.last)}));
})();
const GUTTER = {wide: 150, narrow: 74};
const plots  = [];

function canvasPlot(id, height, draw, hover) {
  const holder = byId(id);
  if (!holder) return;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", holder.previousElementSibling?.textContent ?? id);
  holder.append(canvas);
  const plot = {canvas, holder, draw(given) {
    const width = given ?? holder.clientWidth, scale = Math.max(2, devicePixelRatio || 1);
    const tall  = typeof height === "function" ? height(width) : height;
    canvas.width = width * scale; canvas.height = tall * scale; canvas.style.height = `${tall}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    plot.left = width < 560 ? GUTTER.narrow : GUTTER.wide;
    plot.width = width; plot.tall = tall;
    plot.x = (cycle) => plot.left + (cycle - view.from) / (view.to - view.from) * (width - plot.left - 8);
    plot.cycle = (x) => view.from + (x - plot.left) / (width - plot.left - 8) * (view.to - view.from);
    draw(pen, plot);
  }};
  let drag = null;
  canvas.addEventListener("pointerdown", (e) => {
    if (e.pointerType === "touch") return;
    drag = e.offsetX;
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    const text = hover(plot, e.offsetX, e.offsetY);
    if (text) showTip(text, e.clientX, e.clientY); else hideTip();
    if (drag !== null) {
      plot.draw();
      const pen = canvas.getContext("2d");
      pen.fillStyle = colour("link"); pen.globalAlpha = .18;
      pen.fillRect(Math.min(drag, e.offsetX), 0, Math.abs(e.offsetX - drag), plot.tall);
      pen.globalAlpha = 1;
    }
  });
  canvas.addEventListener("pointerup", (e) => {
    if (drag === null) return;
    const [a, b] = [drag, e.offsetX].sort((p, q) => p - q);
    drag = null;
    if (b - a > 5) zoomTo(plot.cycle(Math.max(a, plot.left)), plot.cycle(b)); else plot.draw();
  });
  canvas.addEventListener("click", (e) => {
    const text = hover(plot, e.offsetX, e.offsetY);
    if (text) { e.stopPropagation(); showTip(text, e.clientX, e.clientY); }
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("dblclick", () => zoomTo(0, time.cycles));
  canvas.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    zoomAround(plot.cycle(e.offsetX), e.deltaY > 0 ? 1.25 : .8);
  }, {passive: false});
  plots.push(plot);
}

function zoomTo(from, to) {
  const least = Math.min(200, time.cycles), middle = (from + to) / 2;
  const half  = Math.max(least, Math.min(to - from, time.cycles)) / 2;
  const start = Math.max(0, Math.min(middle - half, time.cycles - 2 * half));
  view.from = start; view.to = start + 2 * half;
  drawTime();
}
function zoomAround(cycle, factor) {
  zoomTo(cycle - (cycle - view.from) * factor, cycle + (view.to - cycle) * factor);
}
for (const button of all("[data-zoom]")) {
  button.addEventListener("click", () => {
    const middle = (view.from + view.to) / 2, span = view.to - view.from;
    ({in: () => zoomAround(middle, .5), out: () => zoomAround(middle, 2),
      left: () => zoomTo(view.from - span / 2, view.to - span / 2),
      right: () => zoomTo(view.from + span / 2, view.to + span / 2),
      all: () => zoomTo(0, time.cycles)})[button.dataset.zoom]();
  });
}

const inTime = (cycles) => {
  const us = cycles / time.clock_mhz;
  return us >= 1e3 ? `${(us / 1e3).toPrecision(4)} ms` : us >= 1 ? `${us.toPrecision(4)} µs` : `${(us * 1e3).toPrecision(3)} ns`;
};
function ticks(from, to, most) {
  const rough = (to - from) / most, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step  = [1, 2, 5, 10].map((k) => k * power).find((value) => value >= rough);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return found;
}
const short = (value, step) => {
  const [scale, unit] = value >= 1e6 ? [1e6, "M"] : value >= 1e3 ? [1e3, "k"] : [1, ""];
  const digits = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / scale) - 1e-9)));
  return `${(value / scale).toFixed(digits)}${unit ? " " + unit : ""}`;
};
function timeAxis(pen, plot, top, bottom) {
  const marks = ticks(view.from, view.to, Math.max(2, (plot.width - plot.left) / 110));
  pen.strokeStyle = colour("grid"); pen.fillStyle = colour("soft"); pen.textAlign = "center"; pen.lineWidth = 1;
  for (const at of marks) {
    const x = Math.round(plot.x(at)) + .5;
    pen.beginPath(); pen.moveTo(x, top); pen.lineTo(x, bottom); pen.stroke();
    const label = short(at, marks[1] - marks[0] || 1), half = pen.measureText(label).width / 2;
    pen.fillText(label, Math.min(x, plot.width - half - 1), bottom + 9);
  }
  pen.textAlign = "right";
  pen.fillText("cycle", plot.left - 8, bottom + 9);
}
function valueAxis(pen, plot, top, bottom, most, label, form) {
  pen.fillStyle = colour("soft"); pen.strokeStyle = colour("grid"); pen.textAlign = "right";
  const marks = ticks(0, most, 3);
  for (const value of marks) {
    const y = Math.round(bottom - value / most * (bottom - top)) + .5;
    pen.beginPath(); pen.moveTo(plot.left, y); pen.lineTo(plot.width - 8, y); pen.stroke();
    pen.fillText(form(value, marks[1] - marks[0] || 1), plot.left - 6, y);
  }
  pen.textAlign = "left";
  pen.fillText(label, 0, top - 8 < 6 ? 6 : top - 8);
}

// Engines.
const ROW = 21, HEAD = 16;
const LABELS = {load_encoder: "load enc.", load_attention: "load att.", load_decoder: "load dec.",
                encoder_fill: "enc. fill", encoder: "enc. array", attention_fill: "att. fill",
                attention: "att. array", gate: "gate", decoder_fill: "dec. fill",
                decoder: "dec. array", store: "store", store_decoder: "store dec.", monitor: "monitor"};
canvasPlot("plot-engines", () => HEAD + rows.length * ROW + 22, (pen, plot) => {
  const bottom = HEAD + rows.length * ROW;
  timeAxis(pen, plot, HEAD, bottom);
  rows.forEach((row, k) => {
    const y = HEAD + k * ROW;
    pen.fillStyle = colour("ink"); pen.textAlign = "right"; pen.globalAlpha = 1;
    pen.fillText(plot.left < 100 ? LABELS[row.name] : row.label, plot.left - 8, y + ROW / 2);
    const base = colour(row.name === "gate" ? "gate" : row.unit);
    let last = -1;
    for (const slice of row.slices) {
      if (slice.to < view.from || slice.from > view.to) continue;
      const a = Math.max(plot.left, plot.x(slice.from)), b = Math.min(plot.width - 8, plot.x(slice.to));
      if (b - last < .5) continue;            // nothing new on this pixel
      last = b;
      pen.fillStyle = base; pen.globalAlpha = slice.layer % 2 ? .62 : 1;
      pen.fillRect(a, y + 2, Math.max(b - a, .6), ROW - 4);
    }
    labels(pen, plot, row, y);
    pen.globalAlpha = 1; pen.strokeStyle = colour("grid");
    pen.beginPath(); pen.moveTo(0, y + .5); pen.lineTo(plot.width, y + .5); pen.stroke();
  });
  pen.globalAlpha = 1; pen.textAlign = "center";
  time.frames.forEach((frame, k) => {
    for (const [cycle, text] of [[frame.start, `frame ${k} in`], [frame.end, `mask ${k} out`]]) {
      if (cycle < view.from || cycle > view.to) continue;
      const x = plot.x(cycle), half = pen.measureText(text).width / 2;
      pen.strokeStyle = colour("ink"); pen.setLineDash([3, 3]);
      pen.beginPath(); pen.moveTo(x, HEAD - 3); pen.lineTo(x, bottom); pen.stroke(); pen.setLineDash([]);
      pen.fillStyle = colour("soft");
      pen.fillText(text, Math.max(plot.left + half, Math.min(x, plot.width - half - 2)), 7);
    }
  });
}, (plot, x, y) => {
  const row = rows[Math.floor((y - HEAD) / ROW)];
  if (!row || x < plot.left) return null;
  const cycle = plot.cycle(x), slack = plot.cycle(x + 2) - cycle;
  const slice = row.slices.find((one) => one.from - slack <= cycle && cycle <= one.to + slack);
  if (!slice) return `${row.label}: nothing in cycle ${whole(cycle)}`;
  const what  = time.source === "trace" ? `, ${time.operations[slice.operation]}, row ${slice.line}` : "";
  return `${row.label}\n${time.layers[slice.layer]}${what}\ncycles ${whole(slice.from)} to ${whole(slice.to)}: `
       + `${whole(slice.to - slice.from)} (${inTime(slice.to - slice.from)})`;
});
// The name of a layer stands once on each stretch of its slices.
function labels(pen, plot, row, y) {
  pen.textAlign = "left"; pen.globalAlpha = 1;
  let k = 0;
  while (k < row.slices.length) {
    let stop = k;
    while (stop + 1 < row.slices.length && row.slices[stop + 1].layer === row.slices[k].layer) stop += 1;
    const a = Math.max(plot.left, plot.x(row.slices[k].from)), b = Math.min(plot.width - 8, plot.x(row.slices[stop].to));
    const name = time.layers[row.slices[k].layer], wide = b - a > 12 ? pen.measureText(name).width : Infinity;
    if (wide + 8 < b - a) {
      pen.fillStyle = colour("card"); pen.globalAlpha = .88;
      pen.fillRect(a + 3, y + 4, wide + 6, ROW - 8);
      pen.fillStyle = colour("ink"); pen.globalAlpha = 1;
      pen.fillText(name, a + 6, y + ROW / 2);
    }
    k = stop + 1;
  }
}

// On-chip occupancy: a band per block, stacked in order of their beginnings.
const SHADES = ["encoder", "attention", "decoder", "store", "monitor", "spill", "backpressure", "load"];
const shadeOf = new Map();
for (const block of time.blocks) if (!shadeOf.has(block.name)) shadeOf.set(block.name, SHADES[shadeOf.size % SHADES.length]);
const snap = (x) => Math.round(2 * x) / 2;
const peak = Math.max(1, ...occupancy.map((step) => step.live.reduce((sum, block) => sum + block.bytes, 0)));
const bytes = (value) => value >= 2 ** 20 ? `${(value / 2 ** 20).toFixed(2)} MiB` : value >= 1024 ? `${(value / 1024).toFixed(value >= 10240 ? 0 : 1)} KiB` : `${Math.round(value)} B`;
canvasPlot("plot-occupancy", 210, (pen, plot) => {
  const top = 16, bottom = plot.tall - 20, most = Math.max(peak * 1.08, Math.min(time.capacity, peak * 1.6));
  const unit = most >= 2 ** 20 ? 2 ** 20 : most >= 1024 ? 1024 : 1;
  valueAxis(pen, plot, top, bottom, most / unit, `live, ${{1: "bytes", 1024: "KiB", [2 ** 20]: "MiB"}[unit]}`,
            (value, step) => value.toFixed(step < 1 ? 1 : 0));
  timeAxis(pen, plot, top, bottom);
  const biggest = new Map();
  for (const step of occupancy) {
    if (step.to < view.from || step.from > view.to) continue;
    const a = snap(Math.max(plot.left, plot.x(step.from))), b = snap(Math.min(plot.width - 8, plot.x(step.to)));
    let under = 0;
    for (const block of step.live) {
      const y = bottom - (under + block.bytes) / most * (bottom - top), tall = block.bytes / most * (bottom - top);
      pen.fillStyle = colour(shadeOf.get(block.name)); pen.globalAlpha = block.memory === "feedback" ? .55 : .85;
      pen.fillRect(a, y, b - a, tall);
      const room = (b - a) * (tall > 11 ? 1 : 0);
      if (room > (biggest.get(block)?.room ?? 34)) biggest.set(block, {room, x: (a + b) / 2, y: y + tall / 2});
      under += block.bytes;
    }
  }
  pen.globalAlpha = 1; pen.textAlign = "center";
  for (const [block, place] of biggest) {
    const wide = pen.measureText(block.name).width;
    if (wide + 8 > place.room) continue;
    pen.fillStyle = colour("card"); pen.globalAlpha = .85;
    pen.fillRect(place.x - wide / 2 - 3, place.y - 7, wide + 6, 14);
    pen.fillStyle = colour("ink"); pen.globalAlpha = 1;
    pen.fillText(block.name, place.x, place.y);
  }
  if (time.capacity <= most) {
    const y = bottom - time.capacity / most * (bottom - top);
    pen.strokeStyle = colour("offchip"); pen.setLineDash([6, 4]);
    pen.beginPath(); pen.moveTo(plot.left, y); pen.lineTo(plot.width - 8, y); pen.stroke(); pen.setLineDash([]);
    pen.fillStyle = colour("ink"); pen.textAlign = "right"; pen.fillText("capacity", plot.width - 10, y + 8);
  }
}, (plot, x) => {
  if (x < plot.left) return null;
  const cycle = plot.cycle(x), step = occupancy.findLast((one) => one.from <= cycle);
  const live  = step?.live.filter((block) => cycle < block.last) ?? [];
  const total = live.reduce((sum, block) => sum + block.bytes, 0);
  return `cycle ${whole(cycle)}: ${bytes(total)} live\n` + live.toReversed().map((block) =>
    `${block.name}: ${bytes(block.bytes)}${block.memory === "feedback" ? " (feedback memory)" : ""}`).join("\n");
});

// Off-chip bandwidth, read above and written below one line; row hits and misses.
if (time.counters) {
  const {edges, read, write, hits, misses} = time.counters;
  const kinds = Object.keys(CLASS_NAMES).filter((kind) => read[kind] || write[kind]);
  const width = (k) => Math.max(1, (edges[k + 1] ?? time.cycles) - edges[k]);
  // As many bars as pixels allow: neighbouring samples are averaged.
  const bins = (plot, add) => {
    let first = Math.max(0, edges.findLastIndex((edge) => edge <= view.from));
    const lots = Math.max(1, Math.ceil((view.to - view.from) / (width(0)) / ((plot.width - plot.left) / 2)));
    const found = [];
    for (; first < hits.length && edges[first] < view.to; first += lots) {
      const stop = Math.min(first + lots, hits.length), values = {};
      for (let k = first; k < stop; k += 1) add(k, values);
      const from = edges[first], to = edges[stop] ?? time.cycles;
      found.push({from, to, cycles: Math.max(1, to - from), values});
    }
    return found;
  };
  const sum = (values) => Object.values(values).reduce((a, b) => a + b, 0);
  const bars = (pen, plot, list, base, tall, most, shade, sign = 1) => {
    for (const bin of list) {
      const a = Math.max(plot.left, plot.x(bin.from)), b = Math.min(plot.width - 8, plot.x(bin.to));
      let under = 0;
      for (const [key, value] of Object.entries(bin.values)) {
        const high = value / bin.cycles / most * tall;
        pen.fillStyle = colour(shade(key));
        pen.fillRect(a, sign > 0 ? base - under - high : base + under, Math.max(b - a, .8), high);
        under += high;
      }
    }
  };
  const limit = report.traffic.offchip.peak_bytes_per_cycle;
  const adder = (counts) => (k, values) => { for (const kind of kinds) if (counts[kind]?.[k]) values[kind] = (values[kind] ?? 0) + counts[kind][k]; };
  const found = (plot, list, x) => { const cycle = plot.cycle(x); return list.find((bin) => bin.from <= cycle && cycle < bin.to); };
  canvasPlot("plot-bandwidth", 190, (pen, plot) => {
    const top = 16, bottom = plot.tall - 20, middle = top + (bottom - top) * .72;
    plot.read = bins(plot, adder(read)); plot.write = bins(plot, adder(write));
    const most = limit * 1.02;
    valueAxis(pen, plot, top, middle, most, "bytes per cycle: read above, written below the line", (value, step) => value.toFixed(step < 1 ? 1 : 0));
    timeAxis(pen, plot, top, bottom);
    bars(pen, plot, plot.read, middle, middle - top, most, (kind) => kind);
    bars(pen, plot, plot.write, middle + 1, middle - top, most, (kind) => kind, -1);
    pen.strokeStyle = colour("soft"); pen.beginPath(); pen.moveTo(plot.left, middle + .5); pen.lineTo(plot.width - 8, middle + .5); pen.stroke();
  }, (plot, x) => {
    if (x < plot.left) return null;
    const r = found(plot, plot.read, x), w = found(plot, plot.write, x);
    if (!r) return null;
    const lines = [["read", r], ["written", w]].map(([verb, bin]) => `${verb}: ${(sum(bin?.values ?? {}) / r.cycles).toFixed(2)} bytes per cycle`
      + Object.entries(bin?.values ?? {}).map(([kind, value]) => `\n   ${CLASS_NAMES[kind]} ${whole(value)} bytes`).join(""));
    return `cycles ${whole(r.from)} to ${whole(r.to)}\n${lines.join("\n")}`;
  });
  canvasPlot("plot-rows", 120, (pen, plot) => {
    const top = 16, bottom = plot.tall - 20;
    plot.list = bins(plot, (k, values) => { values.hits = (values.hits ?? 0) + hits[k]; values.misses = (values.misses ?? 0) + misses[k]; });
    const most = Math.max(1e-9, ...plot.list.map((bin) => 1000 * sum(bin.values) / bin.cycles)) * 1.05;
    valueAxis(pen, plot, top, bottom, most, "accesses per 1000 cycles", (value, step) => value.toFixed(step < 1 ? 1 : 0));
    timeAxis(pen, plot, top, bottom);
    bars(pen, plot, plot.list, bottom, bottom - top, most / 1000, (kind) => kind);
  }, (plot, x) => {
    const bin = x < plot.left ? null : found(plot, plot.list, x);
    return bin && `cycles ${whole(bin.from)} to ${whole(bin.to)}\n${whole(bin.values.hits)} row hits, ${whole(bin.values.misses)} row misses`;
  });
}

// Roofline.
const dots = report.layers.filter((layer) => layer.macs && layer.cycles).map((layer) => ({
  name: layer.name, unit: layer.unit, macs: layer.macs * report.frames, moved: layer.offchip_bytes,
  rate: layer.macs * report.frames / layer.cycles}));
const run = {name: "whole run", unit: "whole", macs: report.macs * report.frames, moved: report.traffic.offchip.total,
             rate: report.macs * report.frames / report.cycles.total};
function drawRoof(given) {
  const holder = byId("plot-roof"), wide = given ?? holder.clientWidth, tall = wide < 560 ? 330 : 420;
  const [left, right, top, bottom] = [58, 26, 12, tall - 38];
  const reach = dots.filter((dot) => dot.moved).map((dot) => dot.macs / dot.moved);
  const low = 10 ** Math.floor(Math.log10(Math.min(run.macs / run.moved, ...reach) / 1.5));
  const far = 10 ** Math.ceil(Math.log10(Math.max(run.macs / run.moved, 10, ...reach) * 1.5));
  const highest = report.mac_lanes * 1.7, least = Math.min(run.rate, ...dots.map((dot) => dot.rate)) / 2;
  const x = (value) => left + Math.log(value / low) / Math.log(far / low) * (wide - left - right);
  const y = (value) => bottom - Math.log(value / least) / Math.log(highest / least) * (bottom - top);
  const part = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const svg = part("svg", {viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": "Roofline", height: tall});
  const line = (x1, y1, x2, y2, style) => svg.append(part("line", {x1, y1, x2, y2, ...style}));
  for (let at = low; at <= far; at *= 10) {
    line(x(at), top, x(at), bottom, {stroke: colour("grid")});
    svg.append(part("text", {x: x(at), y: bottom + 15, "text-anchor": "middle"}, at >= 1 ? whole(at) : String(at)));
  }
  for (let at = 10 ** Math.ceil(Math.log10(least)); at <= highest; at *= 10) {
    line(left, y(at), wide - right, y(at), {stroke: colour("grid")});
    svg.append(part("text", {x: left - 6, y: y(at) + 4, "text-anchor": "end"}, at >= 1 ? whole(at) : String(at)));
  }
  svg.append(part("text", {x: (left + wide - right) / 2, y: tall - 6, "text-anchor": "middle"}, "MACs per off-chip byte"));
  svg.append(part("text", {x: 12, y: (top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + bottom) / 2})`}, "MACs per cycle"));
  // Roofs: lanes are flat, bandwidths are slopes up to the roof of the whole machine.
  const placed = [];          // middle and half width of what labels must not cover
  const roofs = [...Object.entries(report.lanes), ["machine", report.mac_lanes]];
  for (const [name, lanes] of roofs) {
    line(left, y(lanes), wide - right, y(lanes), {stroke: colour(name === "machine" ? "ink" : name), "stroke-width": name === "machine" ? 1.6 : 1.2, "stroke-dasharray": name === "machine" ? "none" : "5 4"});
    if (wide < 560 && name !== "machine") continue;       // the legend has them
    const label = `${name}: ${lanes} lanes`;
    svg.append(part("text", {x: wide - right - 2, y: y(lanes) - 4, "text-anchor": "end"}, label));
    placed.push([wide - right - 2 - label.length * 3, y(lanes) - 8, label.length * 3]);
  }
  const off = report.traffic.offchip;
  for (const [name, rate, dash] of [["peak", off.peak_bytes_per_cycle, "none"], ["measured", off.measured_bytes_per_cycle, "6 4"]]) {
    const from = Math.max(low, least / rate), to = Math.min(far, report.mac_lanes / rate);
    if (from >= to) continue;
    line(x(from), y(from * rate), x(to), y(to * rate), {stroke: colour("offchip"), "stroke-width": 1.6, "stroke-dasharray": dash});
    const angle = -Math.atan2(y(from * rate) - y(to * rate), x(to) - x(from)) * 180 / Math.PI;
    const at = from * (to / from) ** .3, [px, py] = [x(at), y(at * rate)];
    svg.append(part("text", {x: px, y: py + (name === "peak" ? -6 : 14), "text-anchor": "middle", transform: `rotate(${angle} ${px} ${py})`}, `${name} bandwidth`));
    // What is written along a slope is covered by a few short labels, as far as others are concerned.
    for (let k = -3; k <= 3; k += 1) {
      const along = k * 14;
      placed.push([px + along * Math.cos(angle * Math.PI / 180), py + along * Math.sin(angle * Math.PI / 180), 8]);
    }
  }
  for (const dot of [...dots, run]) placed.push([dot.moved ? x(dot.macs / dot.moved) : wide - right - 6, y(dot.rate), 4]);
  for (const dot of [...dots, run]) {
    const px = dot.moved ? x(dot.macs / dot.moved) : wide - right - 6, py = y(dot.rate);
    const mark = part("use", {href: `#mark-${dot.unit}`, x: px, y: py, class: "dot", tabindex: 0, fill: colour(dot.unit === "whole" ? "ink" : dot.unit),
      stroke: colour("card"), "data-layer": dot.name, "data-intensity": dot.moved ? dot.macs / dot.moved : "", "data-rate": dot.rate});
    const text = `${dot.name}\n${dot.moved ? (dot.macs / dot.moved).toPrecision(4) : "no off-chip bytes, so unlimited"} MACs per off-chip byte\n`
               + `${dot.rate.toPrecision(4)} MACs per cycle${report.lanes[dot.unit] ? `, ${(100 * dot.rate / report.lanes[dot.unit]).toFixed(1)} % of ${report.lanes[dot.unit]} lanes` : ""}`;
    mark.addEventListener("pointermove", (e) => showTip(text, e.clientX, e.clientY));
    mark.addEventListener("click", (e) => { e.stopPropagation(); showTip(text, e.clientX, e.clientY); });
    mark.addEventListener("pointerleave", hideTip);
    mark.addEventListener("focus", () => { const box = mark.getBoundingClientRect(); showTip(text, box.left, box.bottom); });
    mark.addEventListener("blur", hideTip);
    svg.append(mark);
    const half = dot.name.length * 3.5, spot = [[px, py - 9], [px, py + 16], [px + half + 9, py + 4], [px - half - 9, py + 4]]
      .find(([cx, cy]) => cx - half > left && cx + half < wide - right && cy > top + 8 && cy < bottom
        && placed.every(([ox, oy, other]) => Math.abs(ox - cx) > other + half + 1 || Math.abs(oy + 4 - cy) > 8));
    if (spot) {
      placed.push([spot[0], spot[1] - 4, half]);
      svg.append(part("text", {x: spot[0], y: spot[1], "text-anchor": "middle", class: "name"}, dot.name));
    }
  }
  holder.replaceChildren(svg);
}

function drawTime(given) {
  for (const plot of plots) plot.draw(given);
  byId("window").textContent = `cycles ${whole(view.from)} to ${whole(view.to)} of ${whole(time.cycles)} (${inTime(view.to - view.from)})`;
}
function drawAll(given) { drawTime(given); drawRoof(given); }
theme();
drawAll();
let waiting = 0;
addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => drawAll()); });
})();
