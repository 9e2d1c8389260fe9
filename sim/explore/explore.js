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
  const svg  = ["circle", "line", "text", "title"].includes(name);
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
      class: [machine.front ? "front" : "", ...place].join(" "), r: machine.front ? 7 : 4.5,
      cx: box.left + x.at(machine) * (box.right - box.left), cy: box.bottom - y.at(machine) * (box.bottom - box.top),
      style: `--p: ${colour.at(machine).toFixed(3)}`, role: "button", "aria-label": label,
      "data-machine": machine.machine, ...machine.front ? {tabindex: 0} : {}});
    dot.append(node("title", {}, label));
    parts.push(dot);
  }
  plot.replaceChildren(...parts);
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
}

["x", "y", "c"].forEach((axis, k) => {
  const select = byId(`axis-${axis}`);
  select.append(...data.axes.map((name) => node("option", {value: name}, name)));
  select.value = data.axes[Math.min(k, data.axes.length - 1)];
  select.addEventListener("change", draw);
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
pick(picked.a, "a");
})();
