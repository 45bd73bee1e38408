// Trajectory plot: the path of an activation over the level sets of the barrier.

import { outlines, steps } from "./contours.js";
import { el, number, svg } from "./dom.js";

const SIZE = 400; // of the picture, in its own units

/** Draws what POST /playground/trajectory answers. */
export function drawPlane(holder, drawn) {
  const { x, y } = drawn;
  const span = x.at(-1) - x[0];
  const place = ([px, py]) => [
    ((px - x[0]) / span) * SIZE,
    SIZE - ((py - y[0]) / span) * SIZE,
  ];
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": told(drawn) },
    ...levelSets(drawn.level_sets, drawn.threshold),
    ...drawn.starts.map((start, i) => path("neighbour", [start, drawn.ends[i]], place)),
    ...drawn.starts.map((start) => dot("neighbour", start, place, 2)),
    path("path halo", drawn.path, place),
    path("path", drawn.path, place),
    ...drawn.path.slice(1, -1).map((point) => dot("stop", point, place, 2.2)),
    dot("start", drawn.path[0], place, 5.5),
    dot("end", drawn.path.at(-1), place, 5.5),
    ...ruler(span),
  );
  holder.replaceChildren(picture, legend(drawn));
}

/** What the picture shows, in a sentence. */
export function told({ shown, quantity, amount, values, times, mean_norm, threshold, reached }) {
  const [before, after] = [values[0], values.at(-1)];
  const length = Math.abs(times.at(-1));
  if (length < 1e-6 * mean_norm) {
    return `${shown} at ${quantity} ${number(amount, 1)} leaves this activation where it is:` +
      ` h is ${number(before)} nats already.`;
  }
  const goal = threshold !== null && reached === false
    ? `; the cap on its length ends it before ${number(threshold)}`
    : "";
  return `${shown} at ${quantity} ${number(amount, 1)} takes h from ${number(before)} to` +
    ` ${number(after)} nats over ${number(length / mean_norm, 2, false)} mean norms${goal}.`;
}

/** Colour that deepens with every level set that is crossed, the boundary, and the goal. */
function levelSets(values, goal) {
  const all = values.flat();
  const levels = steps(Math.min(...all), Math.max(...all));
  const mirrored = values.map((row) => row.map((value) => -value));
  return [
    area("level above", outlines(values, 0)),
    area("level under", outlines(mirrored, 0)),
    ...levels.map((level) =>
      level > 0
        ? area("level above", outlines(values, level))
        : area("level under", outlines(mirrored, -level)),
    ),
    area("boundary", outlines(values, 0)),
    ...(goal ? [area("goal", outlines(values, goal))] : []),
  ];

  function area(name, rings) {
    // Outlines close half a cell outside the grid, which is outside the picture.
    const unit = SIZE / (values.length - 1);
    const edge = (t) => (t < 0 ? -4 : t > values.length - 1 ? SIZE + 4 : t * unit);
    const d = rings
      .map((ring) => `M${ring.map(([cx, cy]) => `${round(edge(cx))} ${round(SIZE - edge(cy))}`).join("L")}Z`)
      .join("");
    return svg("path", { class: name, d });
  }
}

const round = (value) => Math.round(10 * value) / 10;

function path(name, points, place) {
  const d = points.map((point) => place(point).map(round).join(" ")).join("L");
  return svg("path", { class: name, d: `M${d}` });
}

function dot(name, point, place, r) {
  const [cx, cy] = place(point).map(round);
  return svg("circle", { class: name, cx, cy, r });
}

/** A length in activation units, for scale. */
function ruler(span) {
  const power = 10 ** Math.floor(Math.log10(span / 3));
  const length = [5, 2, 1].map((k) => k * power).find((size) => size <= span / 3);
  const end = 16 + (length / span) * SIZE;
  const y = SIZE - 16;
  return [
    svg("path", { class: "ruler", d: `M16 ${y - 4}V${y}H${round(end)}V${y - 4}` }),
    svg("text", { class: "ruler", x: 20, y: y - 8 }, `${Number(length.toPrecision(2))} units`),
  ];
}

function legend({ starts, threshold, quantity, amount }) {
  const item = (shape, text) =>
    el("li", {}, svg("svg", { viewBox: "0 0 20 12", "aria-hidden": true }, ...shape), text);
  const circle = (name, r) => svg("circle", { class: name, cx: 10, cy: 6, r });
  return el(
    "ul",
    { class: "legend quiet" },
    item([circle("start", 4.5)], "start"),
    item([circle("end", 4.5)], "end"),
    item([svg("path", { class: "boundary", d: "M1 6H19" })], "boundary, h = 0"),
    threshold &&
      item([svg("path", { class: "goal", d: "M1 6H19" })], `${quantity} ${number(amount, 1)}`),
    starts.length > 0 && item([circle("neighbour", 2.2)], "other tokens"),
  );
}
