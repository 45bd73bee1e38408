// Tooltip with the barrier values of a token, on hover and on keyboard focus.

import { byId, el, number } from "./dom.js";

const GAP = 6;

export function showTip(anchor, token, shown) {
  const tip = byId("tip");
  const names = Object.keys(token.values).sort((a, b) => (b === shown) - (a === shown));
  tip.replaceChildren(
    el("code", {}, visible(token.text)),
    ...names.map((name) => {
      const { before, after } = token.values[name];
      const moved = Math.abs(after - before) > 0.005;
      return el(
        "p",
        {},
        el("b", {}, name),
        moved ? ` ${number(before)} → ${number(after)} nats` : ` ${number(after)} nats`,
      );
    }),
    names.length ? "" : el("p", {}, "no value here"),
  );
  tip.hidden = false;
  const at = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const edge = document.documentElement.clientWidth - width - GAP;
  const above = at.top - height - GAP;
  tip.style.left = `${Math.max(GAP, Math.min(at.left, edge)) + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : at.bottom + GAP) + scrollY}px`;
}

export function hideTip() {
  byId("tip").hidden = true;
}

/** Spaces at the edges and line breaks made visible. */
const visible = (text) =>
  text.replaceAll("\n", "↵").replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length)) || "(nothing)";
