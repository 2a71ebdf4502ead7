// Elements, and numbers and times as text. What comes from the server becomes text nodes and never HTML.

export const byId = (id) => document.getElementById(id);

/** An element. `attributes` are set as they are; children are elements or text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** An SVG element. */
export function drawn(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

/** Set a text if it changed, so that a selection and screen readers are left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/**
 * Make the children of `parent` those of `items`, in their order; one that stays keeps its element, and so
 * its focus and whether it is open.
 * @param keyOf item => key.  @param make item => element.  @param update (element, item) => void.
 */
export function keep(parent, items, keyOf, make, update = () => {}) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = there.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    there.delete(key);
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of there.values()) child.remove();
}

/** Three digits: 0.123, 12.3, 1,230. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(size < 0.01 ? 1 : 3)));
}

export const percent = (share) => (share === null ? "–" : `${number(100 * share)} %`);

/** 1 function, 2 functions. */
export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** 3 s, 4 min, 2 h 5 min. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(Math.floor(seconds), 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** Time of day, of this machine's time zone. */
export function clock(unixS) {
  return new Date(1e3 * unixS).toLocaleTimeString("en-GB");
}
