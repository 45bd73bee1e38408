// One of the two texts (unsteered, steered): request, stream, receipt.

import { stream } from "./api.js";
import { el, number } from "./dom.js";
import { TokenText } from "./tokens.js";

const LONGEST = 480; // characters of a prompt that are shown in front of its text

/** Streams the tokens of a request; returns what the last chunk tells of the steering. */
export async function write(path, request, signal, onToken) {
  let receipt = null;
  for await (const chunk of stream(path, request, signal)) {
    for (const choice of chunk.choices ?? []) tokensOf(choice).forEach(onToken);
    receipt = chunk.steering_receipt ?? receipt;
  }
  return receipt;
}

function tokensOf(choice) {
  const detailed = choice.odesteer?.tokens;
  if (detailed) return detailed;
  const text = choice.text ?? choice.delta?.content;
  return text ? [{ text, values: {} }] : [];
}

export class Arm {
  /** @param on.token, on.point, on.pick: see `TokenText` */
  constructor(name, on) {
    this.name = name;
    this.on = on;
    this.asked = null; // the request whose text stands here, whole
    this.controller = null;
    const title = el("h2", { id: `${name}-title` }, name);
    this.figure = el("p", { class: "quiet figure" });
    this.opening = el("span", { class: "opening" });
    this.body = el("span", {
      class: "tokens",
      role: "group",
      "aria-label": `Tokens of the ${name} text; arrow keys move between them`,
    });
    this.receipt = el("ul", { class: "receipt quiet" });
    this.element = el(
      "section",
      { class: `panel arm ${name}`, "aria-labelledby": title.id },
      el("header", {}, title, this.figure),
      el("p", { class: "text" }, this.opening, this.body),
      this.receipt,
    );
    this.text = new TokenText(this.body, on);
  }

  get isWriting() {
    return this.controller !== null;
  }

  stop() {
    this.controller?.abort();
  }

  /** Writes the text of a request, unless it stands here; true if a new text is there, whole. */
  async run(path, request, opening, isForced) {
    const asked = JSON.stringify([path, request]);
    if (asked === this.asked && !isForced) return false;
    this.stop();
    const controller = new AbortController();
    this.controller = controller;
    this.asked = asked;
    this.text.clear();
    this.receipt.replaceChildren();
    this.opening.textContent =
      opening.length > LONGEST ? `… ${opening.slice(-LONGEST)}` : opening;
    this.measure();
    this.element.classList.add("writing");
    try {
      const receipt = await write(path, request, controller.signal, (token) => {
        if (this.controller !== controller) return;
        this.text.add(token);
        this.measure();
        this.on.token();
      });
      if (this.controller !== controller) return false;
      this.receipt.replaceChildren(...(receipt?.applied ?? []).flatMap(line));
      return true;
    } catch (error) {
      if (this.controller === controller) this.asked = null;
      if (controller.signal.aborted) return false;
      throw error;
    } finally {
      if (this.controller === controller) {
        this.controller = null;
        this.element.classList.remove("writing");
      }
    }
  }

  /** Says in words on which side the mean of the values is; the tooltip has it in nats. */
  measure() {
    const { mean, shown } = this.text;
    const isKnown = Number.isFinite(mean);
    this.figure.textContent = isKnown ? `on the whole ${mean < 0 ? "unlike" : "like"} ${shown}` : "";
    this.figure.title = isKnown ? `mean h ${number(mean)} nats` : "";
  }
}

/** A steerer's line of the receipt; nothing for one that only measured. */
function line(applied) {
  if (applied.quantity === null || applied.quantity === undefined) return [];
  const parts = [
    `${applied.name} at ${applied.quantity} ${number(applied.amount, 2)}`,
    `layer ${applied.layer}, ${applied.position}`,
  ];
  if (Number.isFinite(applied.mean_before ?? NaN)) {
    parts.push(`mean h ${number(applied.mean_before)} → ${number(applied.mean_after)} nats`);
  }
  parts.push(`${applied.tokens} tokens`);
  return [el("li", {}, parts.join(" · "))];
}
