// A text as tokens, each tinted by the barrier at the activation it was chosen from.

import { el } from "./dom.js";
import { hideTip, showTip } from "./tip.js";

const FAINTEST = 4; // per cent of colour in a tint
const STRONGEST = 62;

/** What colours a token: h before it was steered, or by how much it was moved. */
export const TINTS = {
  before: ({ before }) => before,
  moved: ({ before, after }) => after - before,
};

/** The value that colours a token; undefined where there is none. */
export function valueOf(token, shown, tint) {
  const values = token.values[shown];
  return values && TINTS[tint](values);
}

export class TokenText {
  /**
   * @param holder the element that holds the tokens
   * @param on.point called with the index of the token that is pointed at, or null
   * @param on.pick called with the index of the token that is chosen
   */
  constructor(holder, on = {}) {
    this.holder = holder;
    this.on = on;
    this.tokens = [];
    this.spans = [];
    this.shown = null;
    this.scale = 1;
    this.tint = "before";
    holder.addEventListener("pointerover", (event) => this.#point(this.#index(event.target)));
    holder.addEventListener("pointerleave", () => this.#point(-1));
    holder.addEventListener("focusin", (event) => this.#point(this.#index(event.target)));
    holder.addEventListener("focusout", () => this.#point(-1));
    holder.addEventListener("keydown", (event) => this.#key(event));
    holder.addEventListener("click", (event) => this.#pick(this.#index(event.target)));
  }

  get text() {
    return this.tokens.map((token) => token.text).join("");
  }

  get values() {
    return this.tokens.map((token) => token.values[this.shown]?.after);
  }

  /** Mean of the values in nats; NaN without any. */
  get mean() {
    const known = this.values.filter(Number.isFinite);
    return known.reduce((sum, value) => sum + value, 0) / known.length;
  }

  clear() {
    this.tokens = [];
    this.spans = [];
    this.holder.replaceChildren();
  }

  add(token) {
    const span = el("span", { class: "token", tabindex: this.spans.length ? -1 : 0 }, token.text);
    this.tokens.push(token);
    this.spans.push(span);
    this.#tint(span, token);
    this.holder.append(span);
  }

  /** Colours by another steerer, on another scale (nats at full colour), or by another tint. */
  colour(shown, scale, tint) {
    this.shown = shown;
    this.tint = tint;
    this.scale = scale || 1;
    this.spans.forEach((span, i) => this.#tint(span, this.tokens[i]));
  }

  /** Marks the token that something else points at. */
  mark(index) {
    this.spans.forEach((span, i) => span.classList.toggle("marked", i === index));
  }

  /** Keeps the token whose trajectory is drawn marked. */
  keep(index) {
    this.spans.forEach((span, i) => span.classList.toggle("kept", i === index));
  }

  #tint(span, token) {
    const value = valueOf(token, this.shown, this.tint);
    const share = Math.min(1, Math.abs(value ?? 0) / this.scale);
    const mix = Number.isFinite(value) ? FAINTEST + (STRONGEST - FAINTEST) * share : 0;
    span.classList.toggle("below", value < 0);
    span.style.setProperty("--mix", `${mix.toFixed(1)}%`);
  }

  #index(node) {
    return this.spans.indexOf(node);
  }

  #point(index) {
    if (index < 0) hideTip();
    else showTip(this.spans[index], this.tokens[index], this.shown);
    this.on.point?.(index < 0 ? null : index);
  }

  #pick(index) {
    if (index >= 0) this.on.pick?.(index);
  }

  /** One stop for the tab key; arrows move between the tokens. */
  #key(event) {
    const at = this.#index(event.target);
    if (at < 0) return;
    const last = this.spans.length - 1;
    const to = {
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      Home: 0,
      End: last,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const next = Math.max(0, Math.min(last, to));
      this.spans[at].tabIndex = -1;
      this.spans[next].tabIndex = 0;
      this.spans[next].focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#pick(at);
    } else if (event.key === "Escape") {
      hideTip();
    }
  }
}
