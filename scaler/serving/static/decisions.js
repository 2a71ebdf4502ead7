// Controllers, what they decided, and what happened to instances.

import { byId, clock, duration, element, keep, setText } from "./dom.js";

const MOST = 100; // rows of a list

/** Changes and happenings, the newest first. What only repeats is one row that counts: an advice, or a refusal. */
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
    row.repeats = repeats(record, change);
    const before = row.repeats === null ? -1 : this.rows.findIndex((one) => one.repeats === row.repeats);
    if (before >= 0) row.times += this.rows.splice(before, 1)[0].times;
    this.rows.unshift(row);
  }
}

/** What is the same in repetitions; null: it is done and counts by itself. Starts have another name each time. */
function repeats({ mode, controller }, change) {
  if (change === null || (mode !== "advice" && change.why_not === null)) return null;
  return JSON.stringify([mode, controller, change.kind, change.function, change.kind === "start" ? "" : change.id, change.why_not]);
}

function became({ record, change, times }) {
  if (change === null) return "";
  const words = change.why_not ?? { applied: "ordered", advice: "advice only", failed: "could not be ordered" }[record.mode] ?? record.mode;
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

/** The newest first; of refusals for one reason, which a controller may try again each second, the last. */
function withoutRepeats(events) {
  const seen = new Set();
  return [...events].reverse().filter(({ what }) => !what.includes(" refused: ") || (!seen.has(what) && seen.add(what)));
}

/** @param events of the server, the oldest first. */
export function showEvents(events, epochS) {
  keep(byId("events"), withoutRepeats(events).slice(0, MOST), (one) => `${one.at_s} ${one.instance} ${one.what}`, () => cells("", "left", "left wrap"), (row, one) => {
    fill(row, [clock(epochS + one.at_s), one.instance, one.what]);
  });
}
