// Controls of the steerers: on or off, amount, and which one is shown in colour.

import { openCard } from "./card.js";
import { byId, el, number } from "./dom.js";

export const MOST = 2.5;
const STEP = 0.1;
const DEFAULT = 1.5;

export class Steerers {
  /**
   * @param described what GET /v1/steerers lists
   * @param on.input called while an amount moves, on.change when something is chosen
   */
  constructor(described, on) {
    this.on = on;
    this.list = described.map((about) => ({
      about,
      name: about.id,
      quantity: about.quantities.includes("level") ? "level" : about.quantities[0],
      hasBarrier: Boolean(about.barrier),
      amount: DEFAULT,
      isOn: false,
    }));
    this.byName = new Map(this.list.map((one) => [one.name, one]));
    this.shown = this.list.find((one) => one.hasBarrier) ?? this.list[0] ?? null;
    byId("no-steerers").hidden = this.list.length > 0;
    byId("steerers").append(...this.list.map((one) => this.#row(one)));
  }

  /** Takes over what a link says; returns the names that are not here. */
  restore(steering, shown) {
    const unknown = steering.map(({ name }) => name).filter((name) => !this.byName.has(name));
    if (!steering.length && this.list.length) steering = [{ ...this.list[0], isOn: true }];
    for (const one of this.list) one.isOn = false;
    for (const { name, amount, isOn } of steering) {
      const one = this.byName.get(name);
      if (one) Object.assign(one, { isOn, amount: within(amount) });
    }
    this.shown = this.byName.get(shown) ?? this.list.find((one) => one.isOn) ?? this.shown;
    this.#write();
    return unknown;
  }

  /** Turns one on and the others off, if it is here. */
  useOnly(name) {
    if (!this.byName.has(name)) return;
    this.shown = this.byName.get(name);
    for (const one of this.list) one.isOn = one === this.shown;
    this.#write();
  }

  /** The view's part: every steerer that acts or was set. */
  get view() {
    return this.list
      .filter((one) => one.isOn || one === this.shown)
      .map(({ name, amount, isOn }) => ({ name, amount, isOn }));
  }

  /** The request's part for the text that nothing moves. */
  get observing() {
    return this.#measured.map(({ name }) => ({ name, observe: true }));
  }

  /** The request's part for the steered text; `amount` takes the place of the shown one's. */
  steering(amount) {
    const acting = this.list
      .filter((one) => one.isOn || (one === this.shown && amount !== undefined))
      .map((one) => applied(one, one === this.shown ? amount : undefined));
    const names = new Set(acting.map(({ name }) => name));
    const observed = this.#measured.filter(({ name }) => !names.has(name));
    return [...acting, ...observed.map(({ name }) => ({ name, observe: true }))];
  }

  /** The request's part for a trajectory of the shown one, whether it is on or not. */
  get following() {
    return this.list.filter((one) => one.isOn || one === this.shown).map((one) => applied(one));
  }

  get isActing() {
    return this.list.some((one) => one.isOn);
  }

  /** h in nats that a level stands for; null without a barrier. */
  threshold(level) {
    const { barrier } = this.shown?.about ?? {};
    return barrier ? level * (level < 0 ? -barrier.lower : barrier.upper) : null;
  }

  setShownAmount(amount) {
    Object.assign(this.shown, { amount: within(amount), isOn: true });
    this.#write();
    this.on.change();
  }

  get #measured() {
    return this.list.filter((one) => one.hasBarrier && (one.isOn || one === this.shown));
  }

  #row(one) {
    const range = { min: -MOST, max: MOST, step: STEP };
    const what = `${one.quantity} of ${one.name}`;
    one.switch = el("input", { type: "checkbox", role: "switch", "data-on": one.name });
    one.slider = el("input", { type: "range", ...range, "aria-label": what });
    one.field = el("input", { type: "number", ...range, "aria-label": `${what}, as a number` });
    one.radio = el("input", { type: "radio", name: "shown", value: one.name });
    one.switch.addEventListener("change", () => {
      one.isOn = one.switch.checked;
      if (one.isOn && !this.shown.isOn) this.shown = one;
      this.#changed();
    });
    for (const input of [one.slider, one.field]) {
      input.addEventListener("input", () => {
        if (input.value === "" || !Number.isFinite(input.valueAsNumber)) return;
        one.amount = within(input.valueAsNumber);
        one.isOn = true;
        if (one.hasBarrier) this.shown = one;
        this.#write(input);
        this.on.input();
      });
      input.addEventListener("change", () => this.#changed());
    }
    one.radio.addEventListener("change", () => {
      this.shown = one;
      this.#changed();
    });
    one.row = el(
      "div",
      { class: "steerer", role: "group", "aria-label": one.name },
      el(
        "div",
        { class: "label" },
        el("label", { class: "switch" }, one.switch, el("span", {}, one.name)),
        el(
          "button",
          { type: "button", class: "plain", onclick: () => openCard(one.about) },
          "About",
          el("span", { class: "unseen" }, ` ${one.name}`),
        ),
      ),
      el("div", { class: "amount" }, one.slider, one.field),
      el(
        "div",
        { class: "ticks", "aria-hidden": true },
        el("span", {}, number(-MOST, 1)),
        el("span", {}, one.quantity === "level" ? "level 0: the boundary" : one.quantity),
        el("span", {}, number(MOST, 1)),
      ),
      this.list.length > 1 &&
        one.hasBarrier &&
        el("label", { class: "shown" }, one.radio, "show in colour"),
    );
    return one.row;
  }

  #changed() {
    this.#write();
    this.on.change();
  }

  /** Writes the values into the controls, but not into the one that is being typed into. */
  #write(typed) {
    for (const one of this.list) {
      one.switch.checked = one.isOn;
      one.slider.value = one.amount;
      if (typed !== one.field) one.field.value = String(Math.round(100 * one.amount) / 100);
      one.slider.setAttribute("aria-valuetext", `${one.quantity} ${number(one.amount, 1)}`);
      one.radio.checked = one === this.shown;
      one.row.classList.toggle("off", !one.isOn);
    }
  }
}

const within = (amount) => Math.max(-MOST, Math.min(MOST, amount));

const applied = (one, amount = one.amount) => ({ name: one.name, [one.quantity]: amount });
