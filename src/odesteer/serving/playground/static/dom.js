// Helpers to create DOM and SVG elements without HTML strings.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element; attributes that are undefined, null or false are left out. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child || child === 0));
  return node;
}

/** A number with a real minus sign, and a plus where it helps. */
export function number(value, digits = 2, plus = true) {
  if (!Number.isFinite(value)) return "–";
  const text = Math.abs(value).toFixed(Math.abs(value) < 100 ? digits : 0);
  const isZero = Number(text) === 0;
  return (isZero ? "" : value < 0 ? "−" : plus ? "+" : "") + text;
}

/** Calls a function once, a moment after the last of several calls. */
export function settled(call, milliseconds) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...args), milliseconds);
  };
}

/** Calls a function at most once for each frame that is painted. */
export function painted(call) {
  let frame = 0;
  return () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      call();
    });
  };
}
