// Charts of the last minutes as SVG: lines and bars over time, axes with units.

import { drawn, number, setAttribute } from "./dom.js";

const LEFT = 52, RIGHT = 10, TOP = 18, BOTTOM = 38, HEIGHT = 190;

/** Round numbers that cover [0, high]. */
function ticks(high, count) {
  const rough = high / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, k) => k * step);
}

/** Path of a line; values that are not known leave gaps, one between gaps is a dot. */
function path(xs, ys) {
  let made = "", pen = false;
  for (let k = 0; k < xs.length; k++) {
    if (ys[k] === null) { pen = false; continue; }
    made += `${pen ? "L" : "M"}${xs[k].toFixed(1)} ${ys[k].toFixed(1)}`;
    if (!pen && (k + 1 === xs.length || ys[k + 1] === null)) made += "h.01";
    pen = true;
  }
  return made;
}

/** A small line without axes; its numbers stand beside it as text. */
export function sparkline(svg, atS, values, nowS, spanS) {
  const width = 120, height = 26, most = Math.max(1e-9, ...values);
  let line = svg.firstElementChild;
  if (line === null) {
    setAttribute(svg, "viewBox", `0 0 ${width} ${height}`);
    setAttribute(svg, "preserveAspectRatio", "none");
    svg.append(line = drawn("path", { class: "line load" }));
  }
  const xs = atS.map((at) => width * (1 - (nowS - at) / spanS));
  setAttribute(line, "d", path(xs, values.map((value) => height - 2 - (height - 4) * (value / most))));
}

/**
 * A chart, drawn anew.
 * @param svg where; it fills the width that its parent has.
 * @param of {title, unit, nowS, spanS, atS, lines: [{values, style}], goal: value|null, marks: [share 0..1], least}
 *   marks: height of a red bar at each time. least, cap: the vertical axis reaches so far at least, at most; what
 *   lies beyond is cut, and the chart says how far it reaches.
 */
export function chart(svg, of) {
  const width = Math.max(svg.parentElement.clientWidth, 160);
  const right = width - RIGHT, bottom = HEIGHT - BOTTOM;
  let most = Math.max(of.least, of.goal ?? 0);
  for (const { values } of of.lines) for (const value of values) if (value > most) most = value;
  const peak = most;
  most = Math.min(most, of.cap ?? most);
  const high = 1.08 * most;
  const x = (at) => right - ((of.nowS - at) / of.spanS) * (right - LEFT);
  const y = (value) => Math.max(bottom - (value / high) * (bottom - TOP), TOP - 2);
  const parts = [];
  for (const tick of ticks(high, 4)) {
    parts.push(drawn("path", { class: "grid", d: `M${LEFT} ${y(tick).toFixed(1)}H${right}` }));
    parts.push(drawn("text", { class: "end", x: LEFT - 7, y: y(tick) + 4 }, number(tick)));
  }
  const [step, per, unit] = of.spanS <= 60 ? [15, 1, "s"] : [60, 60, "min"];
  for (let ago = 0; ago <= of.spanS; ago += step) {
    const at = x(of.nowS - ago).toFixed(1);
    parts.push(drawn("path", { class: "grid", d: `M${at} ${TOP}V${bottom}` }));
    const place = ago === 0 ? "end" : "middle";
    parts.push(drawn("text", { class: place, x: at, y: bottom + 15 }, ago === 0 ? "now" : `−${ago / per}`));
  }
  parts.push(drawn("text", { class: "middle name", x: (LEFT + right) / 2, y: HEIGHT - 6 }, `time, ${unit}`));
  const middle = (TOP + bottom) / 2;
  parts.push(drawn("text", { class: "middle name", x: 10, y: middle, transform: `rotate(-90 10 ${middle})` }, of.unit));
  const xs = of.atS.map(x), bar = Math.max((right - LEFT) / of.spanS, 1.5);
  let bars = "";
  (of.marks ?? []).forEach((share, k) => {
    if (share > 0) bars += `M${(xs[k] - bar).toFixed(1)} ${bottom}h${bar.toFixed(1)}V${(bottom - Math.max(share * (bottom - TOP), 3)).toFixed(1)}h${(-bar).toFixed(1)}Z`;
  });
  if (bars) parts.push(drawn("path", { class: "violated", d: bars }));
  for (const { values, style } of of.lines) {
    parts.push(drawn("path", { class: `line ${style}`, d: path(xs, values.map((v) => (v === null ? null : y(v)))) }));
  }
  if (of.goal !== null && of.goal !== undefined) {
    parts.push(drawn("path", { class: "line goal", d: `M${LEFT} ${y(of.goal).toFixed(1)}H${right}` }));
  }
  if (peak > most) parts.push(drawn("text", { class: "end name", x: right, y: 11 }, `cut: up to ${number(peak)}`));
  setAttribute(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
  setAttribute(svg, "height", String(HEIGHT));
  setAttribute(svg, "role", "img");
  setAttribute(svg, "aria-label", of.title);
  svg.replaceChildren(...parts);
}
