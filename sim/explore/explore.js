"use strict";
// The plot and the two machines; every figure is in the table, too. Nothing is fetched.
(() => {
const data  = JSON.parse(document.getElementById("data").textContent);
const byId  = (id) => document.getElementById(id);
const names = data.figures.map((figure) => figure[0]);
const plot  = byId("plot");
const box   = {left: 80, right: 865, top: 15, bottom: 370};
const MARGIN = 0.04;
const short = new Intl.NumberFormat("en-US", {notation: "compact", maximumFractionDigits: 2});
const plain = new Intl.NumberFormat("en-US", {maximumFractionDigits: 3});
const machines = new Map(data.machines.map((machine) => [machine.machine, machine]));
const picked   = {a: data.machines[0].machine, b: (data.machines[1] ?? data.machines[0]).machine};

function node(name, attributes = {}, text = "") {
  const svg  = ["circle", "line", "path", "rect", "text", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name)
                   : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// A figure of every machine, and its place from 0 to 1 between the least and the most.
function scale(axis) {
  const column = names.indexOf(byId(`axis-${axis}`).value);
  const values = data.machines.map((machine) => machine.figures[column] ?? 0);
  let least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
  if (axis !== "c") [least, most] = [least - MARGIN * (most - least), most + MARGIN * (most - least)];
  return {name: names[column], unit: data.figures[column][1], least, most,
          at: (machine) => most > least ? ((machine.figures[column] ?? 0) - least) / (most - least) : 0.5};
}

// What is inside the ranges: of the plot by hand or typed, both kept in the four fields.
const ends = (axis) => ["from", "to"].map((end) => byId(`${end}-${axis}`));
function range(axis) {
  const typed = ends(axis).map((field) => Number.parseFloat(field.value));
  return [Number.isNaN(typed[0]) ? -Infinity : typed[0], Number.isNaN(typed[1]) ? Infinity : typed[1]];
}
function inside(machine) {
  return ["x", "y"].every((axis) => {
    const value = machine.figures[names.indexOf(byId(`axis-${axis}`).value)] ?? 0, [from, to] = range(axis);
    return from <= value && value <= to;
  });
}
function filter() {
  const among = data.machines.filter(inside), shown = new Set(among.map((machine) => machine.machine));
  for (const row of document.querySelectorAll("#machines tbody tr")) row.hidden = !shown.has(Number(row.id.slice(1)));
  byId("inside").textContent = shown.size < data.machines.length ? `${shown.size} of ${data.machines.length} machines` : "";
  draw();
}

function draw() {
  const x = scale("x"), y = scale("y"), colour = scale("c");
  byId("least").textContent = short.format(colour.least);
  byId("most").textContent  = short.format(colour.most);
  const parts = [];
  for (let k = 0; k <= 4; k++) {
    const across = box.left + k / 4 * (box.right - box.left), up = box.bottom - k / 4 * (box.bottom - box.top);
    parts.push(node("line", {class: "grid", x1: across, x2: across, y1: box.top, y2: box.bottom}),
               node("line", {class: "grid", x1: box.left, x2: box.right, y1: up, y2: up}),
               node("text", {x: across, y: box.bottom + 18, "text-anchor": "middle"}, short.format(x.least + k / 4 * (x.most - x.least))),
               node("text", {x: box.left - 8, y: up + 4, "text-anchor": "end"}, short.format(y.least + k / 4 * (y.most - y.least))));
  }
  parts.push(node("text", {x: (box.left + box.right) / 2, y: 410, "text-anchor": "middle"}, `${x.name} ${x.unit}`),
             node("text", {transform: "translate(16 190) rotate(-90)", "text-anchor": "middle"}, `${y.name} ${y.unit}`));
  for (const machine of [...data.machines].reverse()) {     // the front on top
    const label = `machine ${machine.machine}: ${names.map((name, k) => `${name} ${plain.format(machine.figures[k])}`).join(", ")}`;
    const place = Object.keys(picked).filter((key) => picked[key] === machine.machine);
    const dot   = node("circle", {
      class: [machine.front ? "front" : "", inside(machine) ? "" : "out", ...place].join(" "), r: machine.front ? 7 : 4.5,
      cx: box.left + x.at(machine) * (box.right - box.left), cy: box.bottom - y.at(machine) * (box.bottom - box.top),
      style: `--p: ${colour.at(machine).toFixed(3)}`, role: "button", "aria-label": label,
      "data-machine": machine.machine, ...machine.front ? {tabindex: 0} : {}});
    dot.append(node("title", {}, label));
    parts.push(dot);
  }
  plot.replaceChildren(...parts);
}

// A line of MACs per cycle over MACs per off-chip byte for each of the two, and where they are.
function roof() {
  const frame = {left: 60, right: 880, top: 12, bottom: 295};
  const value = (machine, name) => machine.figures[names.indexOf(name)];
  const two = ["a", "b"].map((place) => {
    const machine = machines.get(picked[place]), lanes = value(machine, "mac_lanes"), cycles = value(machine, "cycles");
    const macs = data.frames * value(machine, "utilisation") * lanes * (value(machine, "interval") ?? value(machine, "latency"));
    return {place, lanes, peak: value(machine, "offchip_peak"), rate: macs / cycles, dense: macs / value(machine, "offchip_bytes_moved")};
  });
  const svg = byId("roof"), parts = [];
  if (two.some((one) => !(one.rate > 0 && one.dense > 0 && one.peak > 0))) { svg.replaceChildren(); return; }
  const least = (pick) => Math.min(...two.map(pick)), most = (pick) => Math.max(...two.map(pick));
  const low  = 10 ** Math.floor(Math.log10(least((one) => Math.min(one.dense, one.lanes / one.peak)) / 2));
  const far  = 10 ** Math.ceil(Math.log10(most((one) => Math.max(one.dense, one.lanes / one.peak)) * 2));
  const down = 10 ** Math.floor(Math.log10(least((one) => one.rate) / 2)), up = most((one) => Math.max(one.lanes, one.rate)) * 2;
  const x = (at) => frame.left + Math.log(at / low) / Math.log(far / low) * (frame.right - frame.left);
  const y = (at) => frame.bottom - Math.log(at / down) / Math.log(up / down) * (frame.bottom - frame.top);
  for (let at = low; at <= far; at *= 10) {
    parts.push(node("line", {class: "grid", x1: x(at), x2: x(at), y1: frame.top, y2: frame.bottom}),
               node("text", {x: x(at), y: frame.bottom + 18, "text-anchor": "middle"}, short.format(at)));
  }
  for (let at = down; at <= up; at *= 10) {
    parts.push(node("line", {class: "grid", x1: frame.left, x2: frame.right, y1: y(at), y2: y(at)}),
               node("text", {x: frame.left - 8, y: y(at) + 4, "text-anchor": "end"}, short.format(at)));
  }
  parts.push(node("text", {x: (frame.left + frame.right) / 2, y: 333, "text-anchor": "middle"}, "MACs per off-chip byte"),
             node("text", {transform: "translate(14 155) rotate(-90)", "text-anchor": "middle"}, "MACs per cycle"));
  const words = [];
  two.forEach((one, k) => {
    const from = Math.max(low, down / one.peak), bend = one.lanes / one.peak, name = one.place.toUpperCase();
    const text = `${name}: ${plain.format(one.rate)} MACs per cycle of ${plain.format(one.lanes)} lanes, ${plain.format(one.dense)} MACs per off-chip byte, at most ${plain.format(one.peak)} bytes per cycle`;
    words.push(text);
    parts.push(node("path", {class: `of-${one.place}`, d: `M${x(from)},${y(from * one.peak)}L${x(bend)},${y(one.lanes)}L${x(far)},${y(one.lanes)}`}));
    const dot = node("circle", {class: `of-${one.place}`, cx: x(one.dense), cy: y(one.rate), r: k ? 5 : 8});
    dot.append(node("title", {}, text));
    parts.push(dot, node("text", {class: `of-${one.place}`, x: x(one.dense) + (k ? 10 : -10), y: y(one.rate) + 5, "text-anchor": k ? "start" : "end"}, name));
  });
  svg.setAttribute("aria-label", words.join("; "));
  svg.replaceChildren(...parts);
}

// Hypervolume over evaluations, whose numbers are on a logarithmic scale.
function progress() {
  const frame = {left: 60, right: 880, top: 12, bottom: 255}, {evaluations, search, random} = data.progress;
  const last = Math.max(2, evaluations[evaluations.length - 1]), parts = [];
  const x = (at) => frame.left + Math.log(at) / Math.log(last) * (frame.right - frame.left);
  const y = (at) => frame.bottom - at * (frame.bottom - frame.top);
  for (let at = 1; at <= last; at *= 10) {
    parts.push(node("line", {class: "grid", x1: x(at), x2: x(at), y1: frame.top, y2: frame.bottom}),
               node("text", {x: x(at), y: frame.bottom + 18, "text-anchor": "middle"}, plain.format(at)));
  }
  for (const at of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(node("line", {class: "grid", x1: frame.left, x2: frame.right, y1: y(at), y2: y(at)}),
               node("text", {x: frame.left - 8, y: y(at) + 4, "text-anchor": "end"}, `${100 * at} %`));
  }
  parts.push(node("text", {x: (frame.left + frame.right) / 2, y: 293, "text-anchor": "middle"}, "evaluations"));
  const words = [];
  [["a", data.enumerated ? "in order" : "this search", search], ["b", "by chance", random]].forEach(([place, name, values], k) => {
    const known = evaluations.map((at, index) => [at, values[index]]).filter((point) => point[1] !== null);
    if (!known.length) return;
    const [at, end] = known[known.length - 1];
    words.push(`${name}: ${known.filter((_, index) => index % 20 === 0).map(([count, share]) => `${(100 * share).toFixed(1)} % after ${count}`).join(", ")}, ${(100 * end).toFixed(1)} % after ${at}`);
    parts.push(node("path", {class: `of-${place}`, d: known.map(([count, share], index) => `${index ? "L" : "M"}${x(count).toFixed(1)},${y(share).toFixed(1)}`).join("")}),
               node("text", {class: `of-${place}`, x: frame.right - 6, y: frame.bottom - 10 - 18 * k, "text-anchor": "end"}, name));
  });
  byId("progress").setAttribute("aria-label", `Hypervolume. ${words.join(". ")}`);
  byId("progress").replaceChildren(...parts);
}

function show(place) {
  const machine = machines.get(picked[place]), other = machines.get(picked[place === "a" ? "b" : "a"]);
  const panel   = byId(`machine-${place}`), knobs = node("dl");
  panel.replaceChildren(node("h3", {}, `${place.toUpperCase()}: machine ${machine.machine}`
    + (machine.front ? ", on the front" : "") + (machine.certified ? `, RTL ${machine.certified}` : "")));
  for (const [path, value] of Object.entries(machine.knobs)) {
    knobs.append(node("dt", {}, path), node("dd", {}, value + (other.knobs[path] === value ? "" : "  ◂ differs")));
  }
  names.forEach((name, k) => {
    const change = place === "b" && other.figures[k] ? machine.figures[k] / other.figures[k] - 1 : 0;
    if (name in machine.knobs) return;
    knobs.append(node("dt", {}, name), node("dd", {}, `${plain.format(machine.figures[k])} ${data.figures[k][1]}`
      + (change ? ` (${change > 0 ? "+" : ""}${(100 * change).toFixed(1)} % of A)` : "")));
  });
  panel.append(knobs);
  Object.values(data.units).forEach((label, unit) => {
    const stack = machine.units[unit], total = stack.reduce((a, b) => a + b, 0);
    const row   = node("div", {class: "row"}), bar = node("span", {class: "bar", role: "img"});
    const share = (cycles) => `${(100 * cycles / total).toFixed(1)} %`;
    const words = data.causes.map(([, cause], k) => `${cause} ${plain.format(stack[k])} (${share(stack[k])})`);
    bar.setAttribute("aria-label", `${label}: ${words.join(", ")}`);
    data.causes.forEach(([key], k) => {
      const part = node("i", {class: `c-${key}`, title: words[k]});
      part.style.flexGrow = stack[k];
      bar.append(part);
    });
    row.append(node("span", {}, label), bar, node("span", {class: "num"}, share(stack[0])));
    panel.append(row);
  });
  const most = Math.max(...machine.luts, ...other.luts);
  panel.append(node("h4", {}, "LUTs of an ECP5, by block"));
  data.places.forEach((label, k) => {
    const row = node("div", {class: "row"}), bar = node("span", {class: "bar"}), part = node("i", {class: "c-issue"});
    part.style.flexGrow = machine.luts[k] / most;
    bar.append(part, node("b"));
    bar.lastChild.style.flexGrow = 1 - machine.luts[k] / most;
    row.append(node("span", {}, label), bar, node("span", {class: "num"}, plain.format(machine.luts[k])));
    panel.append(row);
  });
}

function pick(number, place) {
  picked[place] = number;
  for (const row of document.querySelectorAll("#machines tbody tr")) {
    row.classList.toggle("picked", Object.values(picked).some((one) => row.id === `m${one}`));
  }
  for (const dot of plot.querySelectorAll("circle")) {
    for (const key of ["a", "b"]) dot.classList.toggle(key, picked[key] === Number(dot.dataset.machine));
  }
  show("a");
  show("b");
  roof();
}

["x", "y", "c"].forEach((axis, k) => {
  const select = byId(`axis-${axis}`);
  select.append(...data.axes.map((name) => node("option", {value: name}, name)));
  select.value = data.axes[Math.min(k, data.axes.length - 1)];
  select.addEventListener("change", () => {
    if (axis !== "c") for (const field of ends(axis)) field.value = "";
    filter();
  });
});
for (const axis of ["x", "y"]) for (const field of ends(axis)) field.addEventListener("input", filter);
byId("all").addEventListener("click", () => {
  for (const axis of ["x", "y"]) for (const field of ends(axis)) field.value = "";
  filter();
});

// A drag over the plot is a range of both its axes.
let begun = null;
function spot(e) {
  const {x, y} = new DOMPoint(e.clientX, e.clientY).matrixTransform(plot.getScreenCTM().inverse());
  return [Math.min(Math.max(x, box.left), box.right), Math.min(Math.max(y, box.top), box.bottom)];
}
plot.addEventListener("pointerdown", (e) => {
  if (e.button !== 0 || e.target.dataset.machine) return;
  begun = {from: spot(e), rect: null};
});
document.addEventListener("pointermove", (e) => {
  if (!begun) return;
  const [x, y] = spot(e), [left, top] = [Math.min(x, begun.from[0]), Math.min(y, begun.from[1])];
  begun.rect ??= plot.appendChild(node("rect", {class: "brush"}));
  for (const [key, value] of Object.entries({x: left, y: top, width: Math.max(x, begun.from[0]) - left, height: Math.max(y, begun.from[1]) - top})) begun.rect.setAttribute(key, value);
});
document.addEventListener("pointercancel", () => { begun?.rect?.remove(); begun = null; });
document.addEventListener("pointerup", (e) => {
  const {from, rect} = begun ?? {};
  begun = null;
  if (!rect) return;
  const to = spot(e);
  ["x", "y"].forEach((axis, k) => {
    const {least, most} = scale(axis), [near, size] = k ? [box.bottom, box.top - box.bottom] : [box.left, box.right - box.left];
    const at = [from[k], to[k]].map((end) => least + (end - near) / size * (most - least)).sort((a, b) => a - b);
    ends(axis).forEach((field, end) => { field.value = Number(at[end].toPrecision(6)); });
  });
  filter();
});
plot.addEventListener("click", (e) => {
  if (e.target.dataset.machine) pick(Number(e.target.dataset.machine), e.shiftKey ? "b" : "a");
});
plot.addEventListener("keydown", (e) => {
  if (e.key !== "Enter" && e.key !== " " || !e.target.dataset.machine) return;
  e.preventDefault();
  pick(Number(e.target.dataset.machine), e.shiftKey ? "b" : "a");
});
for (const button of document.querySelectorAll("button[data-machine]")) {
  button.addEventListener("click", () => pick(Number(button.dataset.machine), button.dataset.place));
}
draw();
if (data.progress) progress();
pick(picked.a, "a");
})();
