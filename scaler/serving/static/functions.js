// Functions: a row each, with charts of the last minutes when it is open.

import { chart, sparkline } from "./charts.js";
import { byId, count, drawn, element, keep, number, percent, setAttribute, setText } from "./dom.js";

const OPEN_AT_MOST = 6; // functions whose charts are open at first
const COLOURS = 8;
const CAP = 3; // axes reach to so many objectives, or so many times the load, at most: more would flatten what matters
const MANY = 12; // functions from which on the list scrolls by itself

/** Class of a function's colour; after eight they come again, and names tell them apart. */
export const colourOf = (status, name) =>
  `p${Math.max(status.functions.findIndex((one) => one.name === name), 0) % COLOURS}`;

/** Sum of violations over sum of arrivals in what is kept; null: no arrival. */
export function violatedShare(history) {
  let arrivals = 0, violations = 0;
  for (const columns of history) {
    for (const n of columns.arrivals) arrivals += n;
    for (const n of columns.violations) violations += n;
  }
  // What arrived before the first sample may be late after it.
  return arrivals + violations === 0 ? null : Math.min(violations / Math.max(arrivals, 1), 1);
}

/** Minutes that there is something of, as seconds: at first a short time would be lost in five minutes. */
const spanOf = (status, columns) =>
  Math.min(60 * Math.max(Math.ceil((status.now_s - (columns.at_s[0] ?? status.now_s)) / 60), 1), status.kept_s);

const objective = (one) => (one.slo_ms === null ? "no objective known" : `${number(one.slo_ms)} ms`);
const quantile = (one) => `p${number(100 * one.slo_quantile)}`;

function make(one, status) {
  const cell = (name, label) => element("span", { class: name, "data-label": label });
  const spark = cell("spark", "");
  spark.append(drawn("svg", { class: "plot", "aria-hidden": "true" }));
  const name = element("span", { class: "name" }, element("i", { class: `swatch ${colourOf(status, one.name)}` }), one.name);
  const meter = element("i", { class: "meter", "aria-hidden": "true" });
  meter.append(element("i"));
  const latency = cell("latency", "latency / objective");
  latency.append(element("span"), meter);
  const summary = element("summary", { class: "function" }, name, spark, cell("load", "load"), cell("plan", "planned for / capacity"),
    latency, cell("violations", "violations / allowed"), cell("queue", "queue"), cell("count", "instances"));
  const figure = (kind, title, ...keys) => element("figure", { class: kind }, element("h3", {}, title), drawnIn(),
    element("figcaption", {}, ...keys));
  const drawnIn = () => { const box = element("div"); box.append(drawn("svg", { class: "plot" })); return box; };
  const key = (style, text) => element("span", { class: "key" }, element("i", { class: `rule ${style}` }), text);
  const charts = element("div", { class: "row" },
    figure("load-chart", "Load, forecast, capacity", key("load", "requests that came"), key("forecast", "forecast planned for"), key("capacity", "capacity within the objective")),
    figure("latency-chart", "Latency against objective", key("latency", `${quantile(one)} over 10 s`), key("goal", `objective ${objective(one)}`), key("bad", "violations; full height: all")));
  const made = element("details", {}, summary, charts);
  made.open = status.functions.length <= OPEN_AT_MOST;
  return made;
}

function update(row, one, status, columns) {
  const cell = (name) => row.querySelector(`summary > .${name}`);
  const mine = status.instances.filter((instance) => instance.function === one.name);
  const ready = mine.filter((instance) => instance.state === "ready").length;
  const share = violatedShare([columns]);
  const over = one.slo_ms !== null && one.latency_ms > one.slo_ms;
  const span = spanOf(status, columns);
  sparkline(cell("spark").firstElementChild, columns.at_s, columns.rps, status.now_s, span);
  setText(cell("load"), `${number(one.rps)} /s`);
  const scarce = one.planned_rps !== null && one.planned_rps > one.capacity_rps;
  setText(cell("plan"), one.planned_rps === null ? "no forecast" : `${number(one.planned_rps)} / ${number(one.capacity_rps)} /s${scarce ? ", too little" : ""}`);
  cell("plan").classList.toggle("low", scarce);
  const latency = one.latency_ms === null ? "no answers" : `${number(one.latency_ms)}`;
  const limit = one.slo_ms === null ? (one.latency_ms === null ? "" : " ms") : one.latency_ms === null ? ` / ${objective(one)}` : ` / ${objective(one)}${over ? ", too slow" : ""}`;
  setText(cell("latency").firstElementChild, latency + limit);
  cell("latency").classList.toggle("low", over);
  cell("latency").querySelector(".meter i").style.width = `${one.slo_ms === null || one.latency_ms === null ? 0 : Math.min(100 * one.latency_ms / one.slo_ms, 100)}%`;
  const allowed = 1 - one.slo_quantile, many = share !== null && share > allowed;
  setText(cell("violations"), share === null ? "no requests" : `${number(100 * share)} / ${percent(allowed)}${many ? ", too many" : ""}`);
  cell("violations").classList.toggle("low", many);
  setText(cell("queue"), one.queue === 0 ? "empty" : `${number(one.queue)} wait`);
  setText(cell("count"), mine.length === 0 ? "none" : ready === mine.length ? `${ready} ready` : `${ready} of ${mine.length} ready`);
  cell("count").classList.toggle("low", ready === 0 && one.queue > 0);
  if (row.open) drawCharts(row, one, status, columns);
}

function drawCharts(row, one, status, columns) {
  const common = { nowS: status.now_s, spanS: spanOf(status, columns), atS: columns.at_s };
  chart(row.querySelector(".load-chart svg"), {
    ...common, unit: "requests/s", least: 1, goal: null, cap: CAP * Math.max(1, ...columns.rps, ...columns.planned_rps),
    title: `Load of ${one.name}: ${number(one.rps)} requests/s now, at most ${number(Math.max(0, ...columns.rps))} in the last minutes`,
    lines: [{ values: columns.capacity_rps, style: "capacity" }, { values: columns.planned_rps, style: "forecast" }, { values: columns.rps, style: "load" }],
  });
  chart(row.querySelector(".latency-chart svg"), {
    ...common, unit: "latency, ms", least: one.slo_ms ?? 1, goal: one.slo_ms, cap: one.slo_ms === null ? undefined : CAP * one.slo_ms,
    title: `Latency of ${one.name}: ${number(one.latency_ms)} ms now, objective ${objective(one)}`,
    lines: [{ values: columns.latency_ms, style: "latency" }],
    marks: columns.violations.map((n, k) => (n === 0 ? 0 : Math.min(n / Math.max(columns.arrivals[k], 1), 1))),
  });
}

const ORDERS = {
  given: null,
  load: (one) => -(one.rps ?? 0),
  violations: (one, columns) => -(violatedShare([columns]) ?? 0),
  latency: (one) => -(one.slo_ms === null ? 0 : (one.latency_ms ?? 0) / one.slo_ms),
};

/** Show what is searched for. @param history columns by function. */
export function showFunctions(status, history) {
  const list = byId("functions"), wanted = byId("search").value.trim().toLowerCase();
  const found = status.functions.filter((one) => one.name.toLowerCase().includes(wanted));
  const rank = ORDERS[byId("order").value];
  if (rank !== null) {
    const ranks = new Map(found.map((one) => [one.name, rank(one, history.get(one.name))]));
    found.sort((a, b) => ranks.get(a.name) - ranks.get(b.name));
  }
  // Who works in the list with the keyboard, or points at it, is not to have it move away.
  if (list.matches(":hover") || list.contains(document.activeElement)) {
    const places = new Map([...list.children].map((child, k) => [child.dataset.key, k]));
    found.sort((a, b) => (places.get(a.name) ?? Infinity) - (places.get(b.name) ?? Infinity));
  }
  keep(list, found, (one) => one.name, (one) => {
    const row = make(one, status);
    row.addEventListener("toggle", () => row.update?.());
    return row;
  }, (row, one) => {
    row.update = () => update(row, one, status, history.get(one.name));
  });
  // When all are in the page, as charts need to know how wide they are.
  for (const row of list.children) row.update();
  list.parentElement.classList.toggle("many", found.length > MANY);
  byId("none").hidden = found.length > 0;
  setText(byId("shown"), found.length === status.functions.length ? count(found.length, "function") : `${found.length} of ${count(status.functions.length, "function")}`);
}
