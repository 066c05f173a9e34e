"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (tag, given, ...children) => {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...children);
  return made;
};

// How old the page is, by its reader's clock.
const asOf = document.getElementById("as-of"), hours = (Date.now() - Date.parse(asOf.dateTime)) / 36e5;
const age = hours < 2 ? Math.max(0, Math.round(hours * 60)) + " min" : hours < 48 ? Math.floor(hours) + " h" : Math.floor(hours / 24) + " days";
document.getElementById("age").textContent = ", " + age + " ago";
if (hours > 26) document.getElementById("age").className = "warn";

// Tables: a field that filters their rows, where there are more than a few; of very many the first are shown.
const FEW = 8, MANY = 40, SHOWN = 25;
for (const wide of document.querySelectorAll(".wide")) {
  const table = wide.querySelector("table.sortable");
  wide.tabIndex = 0;
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", wide.closest("section").querySelector("h2").firstChild.textContent.trim());
  if (!table || table.tBodies[0].rows.length < FEW) continue;
  const count = element("span", { className: "quiet", ariaLive: "polite" });
  const field = element("input", { type: "search", placeholder: "filter rows" });
  field.setAttribute("aria-label", "Filter rows of this table");
  const texts = new Map([...table.tBodies[0].rows].map(row => [row, row.textContent.toLowerCase()]));
  const more = element("button", { type: "button" });
  let most = texts.size > MANY ? SHOWN : texts.size;
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const row of table.tBodies[0].rows) row.hidden = !words.every(word => texts.get(row).includes(word)) || ++found > most;
    count.textContent = words.length ? found + " of " + texts.size + " rows" : "";
    more.hidden = found <= most;
    more.textContent = "show all " + found + " rows";
  };
  field.addEventListener("input", show);
  more.addEventListener("click", () => { most = texts.size; show(); });
  table.addEventListener("sort-end", show); // other rows are the first ones
  wide.before(element("div", { className: "filter" }, field, count));
  wide.after(more);
  show();
}

// Charts.
const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const moment = seconds => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
const redraws = [];
for (const chart of data.charts) {
  const subjects = Object.keys(chart.subjects);
  const choice = element("select", {}, ...subjects.map(name => new Option(name, name)));
  choice.setAttribute("aria-label", chart.title + ": of what");
  const place = element("div", { ariaHidden: "true" }), told = element("output"), numbersBelow = element("details", {}, element("summary", { textContent: "the numbers" }));
  document.querySelector(".charts").append(element("figure", { className: "chart" },
    element("figcaption", {}, element("h3", { textContent: chart.title + (chart.title.toLowerCase().includes(chart.unit.toLowerCase()) ? "" : ", " + chart.unit) }), subjects.length > 1 ? choice : element("span", { className: "quiet", textContent: subjects[0] })),
    told, place, element("p", { className: "quiet", textContent: "Each point: " + chart.each + "." }), numbersBelow));
  let drawn = null;
  const tell = (at, lines, index) => {
    told.replaceChildren(...Object.keys(lines).flatMap((name, line) => {
      const value = lines[name][index], key = element("span", { className: "key" });
      key.style.background = "var(--s" + line % 6 + ")";
      return [key, element("span", { textContent: name + " " + (value === null ? "–" : numbers.format(value) + " " + chart.unit) })];
    }), element("span", { className: "quiet", textContent: moment(at[index]) }));
  };
  const draw = () => {
    const { at, lines } = chart.subjects[choice.value], names = Object.keys(lines);
    const times = at.length === 1 ? [at[0] - 3600, at[0], at[0] + 3600] : at;
    const values = names.map(name => (at.length === 1 ? [null, lines[name][0], null] : lines[name]));
    if (drawn) drawn.destroy();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui" };
    drawn = new uPlot({
      width: Math.max(200, place.clientWidth), height: 190, tzDate: seconds => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      scales: { y: { range: (plot, low, high) => [0, Math.max(high || 0, ["tests", "rows", "events", "records", "files"].includes(chart.unit) ? 1 : 0.1) * 1.08] } },
      axes: [{ ...axis, space: 70, values: (plot, splits, axisIndex, space, step) => splits.map(at => {
        const iso = new Date(at * 1000).toISOString();
        return step < 86400 ? iso.slice(11, step < 60 ? 19 : 16) : iso.slice(2, 10);
      }) }, { ...axis, size: 62, values: (plot, splits) => splits.map(value => numbers.format(value)) }],
      series: [{}, ...names.map((name, line) => ({ label: name, stroke: colour("--s" + line % 6), width: 2, spanGaps: true,
        dash: name.startsWith("promised") ? [6, 4] : undefined, points: { show: at.length < 40 && !name.startsWith("promised"), size: 6 } }))],
      hooks: { setCursor: [plot => tell(at, lines, plot.cursor.idx === null ? at.length - 1 : Math.min(at.length - 1, at.length === 1 ? 0 : plot.cursor.idx))] },
    }, [times, ...values], place);
    tell(at, lines, at.length - 1);
    numbersBelow.querySelector("div")?.remove();
    if (numbersBelow.open) list();
  };
  const list = () => {
    const { at, lines } = chart.subjects[choice.value], names = Object.keys(lines);
    const head = element("tr", {}, ...["time", ...names].map(name => element("th", { textContent: name, scope: "col" })));
    const rows = at.map((seconds, index) => element("tr", {}, element("td", { textContent: moment(seconds) }),
      ...names.map(name => element("td", { textContent: lines[name][index] === null ? "–" : numbers.format(lines[name][index]) }))));
    numbersBelow.append(element("div", { className: "wide", tabIndex: 0 }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.reverse()))));
  };
  numbersBelow.addEventListener("toggle", () => { if (numbersBelow.open && !numbersBelow.querySelector("div")) list(); });
  choice.addEventListener("change", draw);
  redraws.push(draw);
}
const redraw = () => redraws.forEach(draw => draw());
redraw();
let width = innerWidth, waiting;
addEventListener("resize", () => {
  if (width === innerWidth) return; // a phone's address bar changes the height alone
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// Lineage: from a table or a column up to what it is made from, and down to what is made from it.
const made = {}, origins = {};
const link = (from, to) => { (origins[to] ??= new Set()).add(from); (made[from] ??= new Set()).add(to); };
for (const [table, node] of Object.entries(data.tables)) for (const parent of node.from) link(parent, table);
for (const [table, columns] of Object.entries(data.columns)) {
  for (const [column, from] of Object.entries(columns)) for (const origin of from) link(origin, table + "." + column);
}
const tableOf = name => name.split(".")[0], known = new Set([...Object.keys(data.tables), ...Object.keys(origins), ...Object.keys(made)]);
for (const [table, columns] of Object.entries(data.columns)) for (const column of Object.keys(columns)) known.add(table + "." + column);
document.getElementById("names").append(...[...known].sort().map(name => new Option("", name)));
const wanted = document.getElementById("wanted"), trail = document.getElementById("trail"), ways = document.getElementById("ways");
// Of a project with very many tables only the neighbours of the chosen one are drawn, the nearest first.
const DRAWN = 60, drawing = document.querySelector(".graph"), drawnOf = document.getElementById("drawn");
function drawOnly(near) {
  const all = Object.keys(data.tables).length;
  if (all <= DRAWN) return;
  const at = {}, rows = {}, shown = new Set([...near].slice(0, DRAWN));
  for (const node of drawing.querySelectorAll(".node")) {
    const box = node.querySelector("rect"), x = +box.getAttribute("x"), name = node.dataset.name;
    node.style.display = shown.has(name) ? "" : "none";
    if (!shown.has(name)) continue;
    const row = (rows[x] = (rows[x] ?? -1) + 1), y = 4 + row * 38;
    at[name] = [x, y, +box.getAttribute("width"), +box.getAttribute("height") / 2];
    node.setAttribute("transform", "translate(0 " + (y - box.getAttribute("y")) + ")");
  }
  for (const edge of drawing.querySelectorAll(".edge")) {
    const from = at[edge.dataset.from], to = at[edge.dataset.to];
    edge.style.display = from && to ? "" : "none";
    if (!from || !to) continue;
    const start = from[0] + from[2], y = from[1] + from[3], end = to[1] + to[3], bend = (start + to[0]) / 2;
    edge.setAttribute("d", `M${start},${y} C${bend},${y} ${bend},${end} ${to[0]},${end}`);
  }
  const height = shown.size ? 8 + 38 * (1 + Math.max(...Object.values(rows))) : 0, width = drawing.getAttribute("width");
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.style.display = shown.size ? "" : "none";
  drawnOf.textContent = !near.size ? all + " tables: choose one, and its neighbours are drawn."
    : near.size > shown.size ? "The nearest " + shown.size + " of " + near.size + " tables are drawn." : "";
}
function follow() {
  const start = wanted.value.trim(), way = ways.querySelector(":checked").value, nodes = new Set(), edges = new Set(), lines = [];
  const walk = (next, sign) => {
    const seen = new Set([start]), queue = [start];
    while (queue.length) {
      const here = queue.shift(), others = [...(next[here] ?? [])].sort();
      nodes.add(tableOf(here));
      if (others.length) lines.push([here, sign, others]);
      for (const other of others) {
        edges.add(sign === "←" ? tableOf(other) + " " + tableOf(here) : tableOf(here) + " " + tableOf(other));
        if (!seen.has(other)) { seen.add(other); queue.push(other); }
      }
    }
  };
  if (known.has(start)) {
    if (way !== "down") walk(origins, "←");
    if (way !== "up") walk(made, "→");
  }
  for (const node of document.querySelectorAll(".graph .node")) {
    node.classList.toggle("on", nodes.has(node.dataset.name));
    node.classList.toggle("dim", nodes.size > 0 && !nodes.has(node.dataset.name));
  }
  for (const edge of document.querySelectorAll(".graph .edge")) {
    const on = edges.has(edge.dataset.from + " " + edge.dataset.to);
    edge.classList.toggle("on", on);
    edge.classList.toggle("dim", nodes.size > 0 && !on);
  }
  drawOnly(nodes);
  const named = name => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => choose(name));
    return button;
  };
  const about = data.tables[tableOf(start)];
  trail.replaceChildren(
    ...(start && !known.has(start) ? [element("li", { className: "quiet", textContent: "No table or column has this name." })] : []),
    ...(about ? [element("li", { className: "quiet", textContent: tableOf(start) + ": " + about.layer + ", owned by " + about.owner + (lines.length ? "" : "; nothing more is known that way") })] : []),
    ...first(lines, SHOWN, ([here, sign, others]) => element("li", {}, named(here), " " + sign + " ", ...first(others, SHOWN, other => element("span", {}, named(other)), "span")), "li"));
}
// The first of a list as elements, and a button for the rest.
function first(list, most, made, tag) {
  const shown = list.slice(0, most).map(made), rest = list.slice(most);
  if (!rest.length) return shown;
  const button = element("button", { type: "button", textContent: "and " + rest.length + " more" }), last = element(tag, {}, button);
  button.addEventListener("click", () => last.replaceWith(...rest.map(made)));
  return [...shown, last];
}
function choose(name) { wanted.value = name; follow(); }
wanted.addEventListener("input", follow);
ways.addEventListener("change", follow);
document.querySelector(".graph").addEventListener("click", event => {
  const node = event.target.closest(".node");
  if (node) choose(node.dataset.name);
});
const asked = decodeURIComponent(location.hash.slice(1));
if (known.has(asked)) choose(asked);
else follow();
