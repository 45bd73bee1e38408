// Level sweep: a table of one prompt at seven levels.

import { write } from "./arm.js";
import { byId, el, number } from "./dom.js";
import { TokenText } from "./tokens.js";

export const LEVELS = [-2.25, -1.5, -0.75, 0, 0.75, 1.5, 2.25];

export class Sweep {
  /** @param onUse called with the level of a row that is chosen */
  constructor(onUse) {
    this.onUse = onUse;
    this.rows = [];
    this.controller = null;
  }

  get isWriting() {
    return this.controller !== null;
  }

  get isShown() {
    return !byId("sweep-panel").hidden;
  }

  stop() {
    this.controller?.abort();
  }

  clear() {
    this.stop();
    byId("sweep-panel").hidden = true;
    byId("sweep-rows").replaceChildren();
    this.rows = [];
  }

  /** Writes all rows at once; `requestAt(level)` is the request of a row, level null unsteered. */
  async run(path, requestAt, shown, scale, onToken) {
    this.stop();
    const controller = new AbortController();
    this.controller = controller;
    byId("sweep-panel").hidden = false;
    byId("sweep-quantity").textContent = shown.quantity;
    byId("sweep-note").textContent =
      `The same prompt and seed, ${shown.name} at seven values; a value can be chosen.`;
    this.rows = [null, ...LEVELS].map((level) => this.#row(level, shown, scale));
    byId("sweep-rows").replaceChildren(...this.rows.map((row) => row.element));
    try {
      await Promise.all(
        this.rows.map((row) =>
          write(path, requestAt(row.level), controller.signal, (token) => {
            row.text.add(token);
            row.mean.textContent = number(row.text.mean);
            onToken();
          }),
        ),
      );
      return this.controller === controller;
    } catch (error) {
      if (controller.signal.aborted) return false;
      controller.abort(); // one row failed; the table is not to be had
      throw error;
    } finally {
      if (this.controller === controller) this.controller = null;
    }
  }

  colour(shown, scale, tint) {
    for (const row of this.rows) row.text.colour(shown, scale, tint);
  }

  #row(level, shown, scale) {
    const said = number(level, 2);
    const head =
      level === null
        ? "none"
        : el(
            "button",
            {
              type: "button",
              class: "plain",
              "aria-label": `Steer at ${shown.quantity} ${said}`,
              onclick: () => this.onUse(level),
            },
            said,
          );
    const holder = el("span", {
      class: "tokens",
      role: "group",
      "aria-label": level === null ? "Unsteered" : `At ${shown.quantity} ${said}`,
    });
    const mean = el("td", { class: "number" });
    const text = new TokenText(holder);
    text.colour(shown.name, scale, "before");
    const element = el("tr", {}, el("th", { scope: "row" }, head), el("td", {}, holder), mean);
    return { level, element, text, mean };
  }
}
