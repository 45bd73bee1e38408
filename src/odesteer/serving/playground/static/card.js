// Dialog with the card of a steerer: site, provenance, held-out figures.

import { byId, el, number } from "./dom.js";

const NAMES = {
  auc: "AUC",
  log_loss: "log loss",
  calibration_error: "calibration error",
  model_id: "model",
  model_revision: "model revision",
  model_width: "width of the model",
  n_layers: "layers of the model",
  n_heads: "attention heads in a layer",
  n_positive: "positive examples",
  n_negative: "negative examples",
  capture_position: "fitted at positions",
  chat_template_hash: "chat template sha256",
  data_digest: "data sha256",
  odesteer_version: "odesteer version",
};

export function openCard(about) {
  byId("card-title").textContent = about.id;
  const acts = {
    method: about.method,
    layer: about.layer,
    position: about.position,
    takes: (about.quantities ?? []).join(", "),
    digest: about.digest,
  };
  const { barrier } = about;
  const levels = barrier && {
    "level 1 (90 % of the positive examples are below)": `${number(barrier.upper)} nats`,
    "level −1 (90 % of the negative examples are above)": `${number(barrier.lower)} nats`,
  };
  byId("card-body").replaceChildren(
    ...table("What it does", acts),
    ...table("Its barrier", levels),
    ...table("Held-out figures", about.held_out),
    ...table("Where it comes from", about.provenance),
    ...whole(about.card),
  );
  byId("card").showModal();
}

function table(title, rows) {
  const known = Object.entries(rows ?? {}).filter(([name, value]) => name !== "held_out" && said(value));
  if (!known.length) return [];
  return [
    el("h3", {}, title),
    el(
      "table",
      {},
      el(
        "tbody",
        {},
        known.map(([name, value]) =>
          el("tr", {}, el("th", { scope: "row" }, NAMES[name] ?? name), el("td", {}, said(value))),
        ),
      ),
    ),
  ];
}

function said(value) {
  if (value === null || value === undefined || value === "") return "";
  if (typeof value === "number") return String(Number(value.toPrecision(4)));
  if (Array.isArray(value)) return value.map(said).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function whole(card) {
  if (typeof card !== "string") return [];
  const text = card.replace(/^---\n[\s\S]*?\n---\n/, "").replace(/<!--[\s\S]*?-->\n*/g, "");
  return [el("details", {}, el("summary", {}, "The whole card"), el("pre", { tabindex: 0 }, text.trim()))];
}
