// Chart of the barrier along both texts, token by token.

import { steps } from "./contours.js";
import { number, svg } from "./dom.js";

const EDGE = { top: 14, right: 76, bottom: 30, left: 44 };
const FEWEST = 10; // tokens that the axis has room for at least

export class BarrierChart {
  /** @param onPoint called with the index of the token that is pointed at, or null */
  constructor(holder, onPoint) {
    this.holder = holder;
    this.onPoint = onPoint;
    this.marked = null;
    this.lines = [];
    this.goal = null;
    new ResizeObserver(() => this.draw()).observe(holder);
    holder.addEventListener("pointermove", (event) => this.#point(event));
    holder.addEventListener("pointerleave", () => this.onPoint(null));
  }

  /**
   * @param lines {name, values: [{before, after} or undefined]} each
   * @param goal {value, label}, or null: what steering is to reach
   */
  show(lines, goal) {
    this.lines = lines;
    this.goal = goal;
    this.draw();
  }

  mark(index) {
    this.marked = index;
    this.marks?.replaceChildren(...this.#mark());
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.holder;
    if (!width || !height) return;
    const known = this.lines.flatMap(({ values }) => values.filter(Boolean));
    const heights = [...known.flatMap(({ before, after }) => [before, after]), 0];
    if (this.goal) heights.push(this.goal.value);
    const least = Math.min(...heights);
    const most = Math.max(...heights);
    const room = 0.08 * (most - least) || 0.5;
    const count = Math.max(FEWEST, ...this.lines.map(({ values }) => values.length));
    const right = width - EDGE.right;
    const bottom = height - EDGE.bottom;
    this.x = (i) => EDGE.left + ((i + 0.5) / count) * (right - EDGE.left);
    this.y = (h) => bottom - ((h - least + room) / (most - least + 2 * room)) * (bottom - EDGE.top);
    this.count = count;
    this.bottom = bottom;
    this.marks = svg("g", {}, ...this.#mark());
    const zero = this.y(0);
    const picture = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": this.#told() },
      rect("good", EDGE.left, EDGE.top, right, zero),
      rect("bad", EDGE.left, zero, right, bottom),
      ...[0, ...steps(least - room, most + room, 5)].flatMap((h) => this.#tick(h, right)),
      ...this.#goalLine(right),
      ...ticksBelow(count, this.x, bottom),
      ...this.lines.flatMap((line) => this.#line(line)),
      ...this.#names(right),
      this.marks,
    );
    this.holder.replaceChildren(picture);
  }

  #told() {
    const means = this.lines.map(({ name, values }) => {
      const after = values.filter(Boolean).map((value) => value.after);
      const mean = after.reduce((sum, value) => sum + value, 0) / after.length;
      return `${name}: ${after.length} tokens, mean h ${number(mean)} nats`;
    });
    return `Barrier along the text. ${means.join("; ")}. The values are at the tokens above.`;
  }

  #tick(h, right) {
    const y = this.y(h);
    const name = h === 0 ? "grid zero" : "grid";
    return [
      svg("path", { class: name, d: `M${EDGE.left} ${y}H${right}` }),
      svg("text", { class: "tick", x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, label(h)),
    ];
  }

  #goalLine(right) {
    if (!this.goal) return [];
    const y = this.y(this.goal.value);
    return [
      svg("path", { class: "goal", d: `M${EDGE.left} ${y}H${right}` }),
      svg("text", { class: "goal", x: EDGE.left + 6, y: y - 5 }, this.goal.label),
    ];
  }

  #line({ name, values }) {
    const points = values
      .map((value, i) => value && { x: this.x(i), y: this.y(value.after), from: this.y(value.before) })
      .filter(Boolean);
    if (!points.length) return [];
    const r = Math.max(1, Math.min(2.6, (this.x(1) - this.x(0)) / 4));
    const stems = points.filter(({ y, from }) => Math.abs(y - from) > 1);
    return [
      svg("path", { class: `stems ${name}`, d: stems.map(({ x, y, from }) => `M${x} ${from}V${y}`).join("") }),
      svg("path", { class: `line ${name}`, d: `M${points.map(({ x, y }) => `${x} ${y}`).join("L")}` }),
      ...points.map(({ x, y }) => svg("circle", { class: `point ${name}`, cx: x, cy: y, r })),
    ];
  }

  /** The lines' names beside their ends, kept apart. */
  #names(right) {
    const ends = this.lines
      .map(({ name, values }) => ({ name, last: values.filter(Boolean).at(-1) }))
      .filter(({ last }) => last)
      .map(({ name, last }) => ({ name, y: this.y(last.after) + 4 }))
      .sort((a, b) => a.y - b.y);
    if (ends.length === 2 && ends[1].y - ends[0].y < 15) {
      const middle = (ends[0].y + ends[1].y) / 2;
      [ends[0].y, ends[1].y] = [middle - 7.5, middle + 7.5];
    }
    return ends.map(({ name, y }) => svg("text", { class: `name ${name}`, x: right + 8, y }, name));
  }

  #mark() {
    if (this.marked === null || this.marked >= this.count) return [];
    const x = this.x(this.marked);
    const values = this.lines.map(({ name, values: all }) => ({ name, value: all[this.marked] }));
    return [
      svg("path", { class: "cross", d: `M${x} ${EDGE.top}V${this.bottom}` }),
      ...values
        .filter(({ value }) => value)
        .map(({ name, value }) =>
          svg("circle", { class: `big point ${name}`, cx: x, cy: this.y(value.after), r: 5 }),
        ),
    ];
  }

  #point(event) {
    const box = this.holder.getBoundingClientRect();
    const inner = box.width - EDGE.left - EDGE.right;
    const at = Math.floor(((event.clientX - box.left - EDGE.left) / inner) * this.count);
    this.onPoint(at >= 0 && at < this.count ? at : null);
  }
}

const label = (h) => {
  const rounded = Number(h.toPrecision(3));
  const digits = String(rounded).split(".")[1]?.length ?? 0;
  return number(rounded, Math.min(digits, 3));
};

const rect = (name, x, y, right, bottom) =>
  svg("rect", { class: name, x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) });

function ticksBelow(count, x, bottom) {
  const [step] = steps(1, count, 6);
  const every = Math.max(1, Math.round(step));
  const numbers = [];
  for (let i = every; i <= count; i += every) numbers.push(i);
  return numbers.map((i) =>
    svg("text", { class: "tick", x: x(i - 1), y: bottom + 18, "text-anchor": "middle" }, i),
  );
}
