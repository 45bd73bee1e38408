// State of the page in the URL fragment.

const DEFAULTS = { mode: "text", tokens: 48, temperature: 0.7, top_p: 1, seed: 2 };

/** The view of a link; what the link does not say is undefined or empty. */
export function readView(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const numeric = (name, low, high) => {
    const value = Number(given.get(name) ?? NaN);
    return value >= low && value <= high ? value : DEFAULTS[name];
  };
  return {
    isLink: given.has("prompt"),
    prompt: given.get("prompt") ?? "",
    mode: given.get("mode") === "chat" ? "chat" : "text",
    tokens: Math.round(numeric("tokens", 1, 4096)),
    temperature: numeric("temperature", 0, 2),
    top_p: numeric("top_p", 0, 1),
    system: given.get("system") ?? "",
    stop: (given.get("stop") ?? "").slice(0, 256),
    turns: given.getAll("turn").map(readTurn).filter(Boolean),
    seed: Math.round(numeric("seed", 0, 2 ** 31 - 1)),
    steering: given.getAll("steer").map(readSteering).filter(Boolean),
    shown: given.get("shown"),
    texts: given.has("texts"),
    sweep: given.has("sweep"),
  };
}

/** The link's part for a view. */
export function writeView(view) {
  const said = new URLSearchParams({ prompt: view.prompt });
  for (const name of ["mode", "tokens", "temperature", "top_p", "seed"]) {
    if (view[name] !== DEFAULTS[name]) said.set(name, view[name]);
  }
  if (view.system) said.set("system", view.system);
  if (view.stop) said.set("stop", view.stop);
  for (const turn of view.turns) said.append("turn", JSON.stringify(turn));
  for (const { name, amount, isOn } of view.steering) {
    said.append("steer", `${name}@${amount}${isOn ? "" : ":off"}`);
  }
  if (view.shown) said.set("shown", view.shown);
  if (view.texts) said.set("texts", "");
  if (view.sweep) said.set("sweep", "");
  return `#${said}`;
}

function readTurn(text) {
  try {
    const { user, unsteered, steered } = JSON.parse(text);
    const isTurn = [user, unsteered, steered].every((each) => typeof each === "string");
    return isTurn ? { user, unsteered, steered } : null;
  } catch {
    return null;
  }
}

function readSteering(text) {
  const match = /^([\w.-]+)@(-?[\d.]+)(:off)?$/.exec(text);
  const amount = Number(match?.[2]);
  return Number.isFinite(amount) ? { name: match[1], amount, isOn: !match[3] } : null;
}
