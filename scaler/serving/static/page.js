// Asks the server each second for what is new, and shows it. It says so when there is no answer, goes on asking,
// and begins anew with a server that was started anew.

import { Decisions, showControllers, showDecisions, showEvents } from "./decisions.js";
import { byId, clock, count, element, keep, number, percent, setText } from "./dom.js";
import { showFunctions, violatedShare } from "./functions.js";
import { showGpus } from "./gpus.js";

const EVERY_MS = 1000, PATIENCE_MS = 5000, EVENTS = 200, TOKEN = "rapp-token";

let last = null;          // the last answer
let history = new Map();  // columns by function
let decisions = new Decisions(), events = [];
let lostAt = null, restartedAt = null, timer = null;

function token() {
  try { return sessionStorage.getItem(TOKEN); } catch { return null; }
}

async function ask() {
  const query = last === null ? "" : `?boot=${encodeURIComponent(last.boot_id)}&since=${last.now_s}`;
  const headers = token() === null ? {} : { Authorization: `Bearer ${token()}` };
  const answer = await fetch(`status${query}`, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) return null;
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

let asking = false;

async function tick() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const status = await ask().catch(() => undefined);
    if (status === undefined) lost();
    else if (status === null) refused();
    else take(status);
  } finally {
    asking = false;
    timer = setTimeout(tick, EVERY_MS);
  }
}

function lost() {
  lostAt ??= new Date();
  const shown = last === null ? "" : "; what is shown is older";
  say("lost", `Connection lost: no answer since ${lostAt.toLocaleTimeString("en-GB")}${shown}. Trying again each second.`);
}

function refused() {
  lostAt = null;
  byId("token-form").hidden = false;
  say("waiting", token() === null ? "Waiting for the token" : "The server does not take this token");
}

function take(status) {
  if (last !== null && status.boot_id !== last.boot_id) restartedAt = status.unix_s;
  if (status.since_s === null) {
    history = new Map();
    decisions = new Decisions();
    events = [];
  }
  for (const [name, columns] of Object.entries(status.history)) extend(name, columns, status.now_s - status.kept_s);
  decisions.add(status.decisions);
  events = events.concat(status.events).slice(-EVENTS);
  last = status;
  lostAt = null;
  byId("token-form").hidden = true;
  const restarted = restartedAt === null ? "" : `; the server was started anew, seen at ${clock(restartedAt)}`;
  say(status.is_ready ? "live" : "waiting", `${status.is_ready ? "Live" : "Live, but not every function has an instance that serves"}${restarted}`);
  show();
}

function extend(name, columns, fromS) {
  const kept = history.get(name);
  if (kept === undefined) {
    history.set(name, columns);
    return;
  }
  for (const key of Object.keys(columns)) kept[key].push(...columns[key]);
  const old = kept.at_s.findIndex((at) => at >= fromS);
  if (old > 0) for (const key of Object.keys(kept)) kept[key].splice(0, old);
}

function say(kind, text) {
  byId("connection").className = kind;
  document.body.classList.toggle("stale", kind !== "live" && lostAt !== null);
  setText(byId("connection-text"), text);
  document.title = kind === "lost" ? "(connection lost) RaPP serve" : "RaPP serve";
}

function show() {
  if (last === null) return;
  byId("content").hidden = false;
  const epochS = last.unix_s - last.now_s;
  setText(byId("about"), `Version ${last.server} on ${last.gpus.map((gpu) => gpu.id).join(", ")}`);
  showTiles();
  showFunctions(last, history);
  showGpus(last);
  showControllers(last);
  showDecisions(decisions, epochS);
  showEvents(events, epochS);
}

function showTiles() {
  const sum = (items, of) => items.reduce((total, one) => total + (of(one) ?? 0), 0);
  const ready = last.instances.filter((one) => one.state === "ready").length;
  const taken = sum(last.instances, (one) => one.sm_pct * one.quota_pct / 1e4);
  const controller = last.controllers[0];
  const tiles = [
    ["load", `${number(sum(last.functions, (one) => one.rps))} /s`, `requests to ${count(last.functions.length, "function")}`],
    ["violations", percent(violatedShare([...history.values()])), "of the requests in the last 5 minutes"],
    ["waiting", number(sum(last.functions, (one) => one.queue)), `in queues; ${sum(last.functions, (one) => one.in_flight)} in work`],
    ["instances", `${ready} ready`, `of ${last.instances.length}`],
    ["allocated", number(taken), "GPU-seconds per second"],
    ["controller", controller === undefined ? "none" : controller.policy || controller.kind, controller?.state ?? "instances stay as they are"],
  ];
  keep(byId("tiles"), tiles, ([name]) => name, ([name]) => element("div", { class: "tile" }, element("span", {}, name), element("b"), element("span")), (tile, [, value, note]) => {
    setText(tile.children[1], value);
    setText(tile.children[2], note);
  });
}

byId("search").addEventListener("input", show);
byId("order").addEventListener("change", show);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  try { sessionStorage.setItem(TOKEN, byId("token").value.trim()); } catch { /* it is asked for again */ }
  tick();
});
addEventListener("resize", show);
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
tick();
