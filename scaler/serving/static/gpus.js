// GPUs: rows of SM partitions, and instances in them; and instances as a table.

import { byId, duration, element, keep, number, setAttribute, setText } from "./dom.js";
import { colourOf } from "./functions.js";

const STATES = {
  starting: "starts, takes no requests yet",
  ready: "serves",
  draining: "finishes its last batch, then ends",
  lost: "its worker died, starts again",
};

const LEAST_SHARE = 7; // SM partition from which on there is room for its number beside it, %

const sizes = (one) => `SM ${number(one.sm_pct)} %, quota ${number(one.quota_pct)} %, batch ${one.batch}`;

function rowsOf(instances) {
  const rows = new Map();
  for (const one of instances) {
    if (!rows.has(one.row)) rows.set(one.row, { row: one.row, sm_pct: one.sm_pct, instances: [] });
    rows.get(one.row).instances.push(one);
  }
  return [...rows.values()].sort((a, b) => a.row - b.row);
}

function showGpu(box, gpu, status) {
  const instances = status.instances.filter((one) => one.gpu === gpu.id);
  const rows = rowsOf(instances);
  const used = instances.reduce((sum, one) => sum + (one.sm_pct / 100) * (one.quota_pct / 100), 0);
  setText(box.querySelector(".what"),
    `${gpu.id}: ${number(gpu.host_cores)} cores, ${number(gpu.memory_mib)} MiB; ${number(100 * used)} % of SM × quota is taken`);
  keep(box.querySelector(".rows"), rows, (one) => one.row,
    (one) => element("div", { class: "sm-row", role: "list", "aria-label": `row ${one.row}` }, element("div", { class: "boxes" })),
    (node, one) => {
      node.style.height = `${one.sm_pct}%`;
      setAttribute(node, "aria-label", `row ${one.row}, SM partition ${number(one.sm_pct)} %`);
      keep(node.firstElementChild, one.instances, (instance) => instance.id, makeBox, (child, instance) => updateBox(child, instance, status));
    });
  keep(box.querySelector(".shares"), rows, (one) => one.row, () => element("span"), (node, one) => {
    node.style.height = `${one.sm_pct}%`;
    setText(node, one.sm_pct >= LEAST_SHARE ? `${number(one.sm_pct)} %` : "");
  });
}

const makeBox = () => element("div", { class: "instance", role: "listitem" },
  element("b"), element("span", { class: "state" }), element("span", { class: "size" }));

function updateBox(box, one, status) {
  const [name, state, size] = box.children;
  box.className = `instance ${colourOf(status, one.function)} ${one.state}`;
  box.style.width = `${one.quota_pct}%`;
  setText(name, one.function);
  setText(state, one.state);
  setText(size, `quota ${number(one.quota_pct)} %, batch ${one.batch}`);
  const about = `${one.id} of ${one.function}: ${one.state}; ${sizes(one)}`;
  setAttribute(box, "title", about);
  setAttribute(box, "aria-label", about);
}

const makeGpu = () => {
  const grid = element("div", { class: "gpu-grid" },
    element("div", { class: "shares", "aria-hidden": "true" }), element("div", { class: "rows" }),
    element("div", { class: "quotas", "aria-hidden": "true" }, ...[0, 25, 50, 75, 100].map((q) => element("span", {}, `${q}`))),
    element("div", { class: "axis", "aria-hidden": "true" }, "time quota, %"));
  return element("figure", { class: "gpu" }, element("h3", { class: "what" }), grid);
};

function makeRow() {
  const row = element("tr", {});
  for (let k = 0; k < 11; k++) row.append(element("td", k > 0 && k < 3 ? { class: "left" } : {}));
  return row;
}

/** Show GPUs and instances. */
export function showGpus(status) {
  const names = status.gpus.map((gpu) => (gpu.id.startsWith("cpu") ? "CPU" : "GPU"));
  for (const id of ["gpus-title", "gpus-link"]) setText(byId(id), [...new Set(names)].join(" and ") + (status.gpus.length > 1 ? "s" : ""));
  keep(byId("gpus"), status.gpus, (gpu) => gpu.id, makeGpu, (box, gpu) => showGpu(box, gpu, status));
  keep(byId("legend"), Object.entries(STATES), ([state]) => state, ([state, what]) =>
    element("li", {}, element("i", { class: `sample instance p7 ${state}` }), element("b", {}, state), ` ${what}`));
  keep(byId("instances"), status.instances, (one) => one.id, makeRow, (row, one) => {
    const texts = [one.id, one.function, one.state, duration(status.now_s - one.since_s), `${one.row}`, number(one.sm_pct), number(one.quota_pct),
      `${one.batch}`, one.requests.toLocaleString("en"), `${one.in_flight}`, `${one.restarts}`];
    texts.forEach((text, k) => setText(row.cells[k], text));
  });
}
