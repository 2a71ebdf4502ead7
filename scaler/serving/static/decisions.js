// Controllers, what they decided, and what happened to instances.

import { byId, clock, duration, element, keep, setText } from "./dom.js";

const MOST = 100; // rows of a list

/** Changes and happenings, the newest first; an advice that is given again is one row that counts. */
export class Decisions {
  constructor() { this.rows = []; }

  add(records) {
    for (const record of records) {
      if (record.changes.length === 0) this.addRow(record, null, 0);
      record.changes.forEach((change, k) => this.addRow(record, change, k));
      if (record.more > 0) this.addRow(record, { kind: "", id: "", to: `${record.more} more changes`, reason: "", why_not: null }, "more");
    }
    this.rows.length = Math.min(this.rows.length, MOST);
  }

  addRow(record, change, place) {
    const row = { key: `${record.number}.${place}`, at_s: record.at_s, record, change, times: 1 };
    if (record.mode === "advice" && change !== null) {
      const same = (one) => one.record.mode === "advice" && one.record.controller === record.controller
        && one.change?.kind === change.kind && one.change.id === change.id && one.change.to === change.to;
      const before = this.rows.findIndex(same);
      if (before >= 0) row.times += this.rows.splice(before, 1)[0].times;
    }
    this.rows.unshift(row);
  }
}

function became({ record, change, times }) {
  if (change === null) return "";
  if (change.why_not !== null) return change.why_not;
  const words = { applied: "ordered", advice: "advice only", failed: "could not be ordered" }[record.mode] ?? record.mode;
  return times > 1 ? `${words}, ${times} times` : words;
}

const cells = (...classes) => element("tr", {}, ...classes.map((name) => element("td", { class: name })));

function fill(row, texts) {
  texts.forEach((text, k) => setText(row.cells[k], text));
}

/** @param epochS time of day at which the server's clock was 0, s. */
export function showDecisions(decisions, epochS) {
  keep(byId("decisions"), decisions.rows, (one) => one.key, () => cells("", "left wrap", "left wrap", "left wrap"), (row, one) => {
    const { record, change } = one;
    const what = change === null ? record.event : [change.kind, change.id, change.to && `${{ start: "with ", resize: "to " }[change.kind] ?? ""}${change.to}`].filter(Boolean).join(" ");
    fill(row, [clock(epochS + one.at_s), what, change === null ? record.detail : change.reason, became(one)]);
    row.classList.toggle("refused", change !== null && change.why_not !== null);
  });
  byId("no-decisions").hidden = decisions.rows.length > 0;
}

export function showControllers(status) {
  const shown = status.controllers.length > 0 ? status.controllers
    : [{ name: "none", kind: "none", policy: "", state: "instances stay as they are; rapp autoscale would change them", seen_s: null }];
  keep(byId("controllers"), shown, (one) => one.name, () => element("li", {}, element("b"), element("span")), (row, one) => {
    row.className = one.kind;
    const by = one.kind === "none" ? "No controller" : `${one.name}${one.policy ? ` (${one.policy})` : ""}`;
    setText(row.firstElementChild, by);
    setText(row.lastElementChild, `: ${one.state}${one.seen_s === null ? "" : `; heard of ${duration(status.now_s - one.seen_s)} ago`}`);
  });
}

/** @param events of the server, the oldest first. */
export function showEvents(events, epochS) {
  keep(byId("events"), events.slice(-MOST).reverse(), (one) => `${one.at_s} ${one.instance} ${one.what}`, () => cells("", "left", "left wrap"), (row, one) => {
    fill(row, [clock(epochS + one.at_s), one.instance, one.what]);
  });
}
