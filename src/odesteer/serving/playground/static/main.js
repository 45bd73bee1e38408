// Entry point of the playground: connects controls, texts, charts and link.

import { get, post } from "./api.js";
import { Arm } from "./arm.js";
import { BarrierChart } from "./barrier_chart.js";
import { complaint, promptOf, readControls, requestOf, writeControls } from "./controls.js";
import { byId, number, painted, settled } from "./dom.js";
import { offerExamples } from "./examples.js";
import { drawPlane, told } from "./plane.js";
import { Steerers } from "./steerers.js";
import { Sweep } from "./sweep.js";
import { hideTip } from "./tip.js";
import { readView, writeView } from "./view.js";

const FULL_COLOUR = 1.5; // the level at which a tint is at its strongest
const PAUSE = 250; // milliseconds without a change before anything is asked for

let model = "";
let steerers;
let chosen = null; // the token whose trajectory is drawn; null for the last activation
let hasTexts = false;
let drawing = null;

const drawSoon = painted(() => drawChart());
const arms = ["unsteered", "steered"].map(
  (name) => new Arm(name, { token: drawSoon, point: mark, pick: name === "steered" ? pick : undefined }),
);
const [unsteered, steered] = arms;
const chart = new BarrierChart(byId("barrier"), mark);
const sweep = new Sweep((level) => steerers.setShownAmount(level));

start().catch(complain);

async function start() {
  byId("arms").append(...arms.map((arm) => arm.element));
  listen();
  const [models, listed] = await Promise.all([get("v1/models"), get("v1/steerers")]);
  model = models.data[0].id;
  byId("model").textContent = model;
  steerers = new Steerers(listed.data, { input: amountMoves, change: settled(changed, PAUSE) });
  const first = offerExamples(model, ({ text, steerer }) => {
    byId("prompt").value = text;
    steerers.useOnly(steerer);
    generate();
  });
  byId("generate").disabled = false;
  openLink(first);
}

function listen() {
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  byId("controls").addEventListener("change", remember);
  byId("prompt").addEventListener("input", settled(remember, PAUSE));
  byId("sweep").addEventListener("click", runSweep);
  byId("stop").addEventListener("click", stop);
  byId("reseed").addEventListener("click", () => {
    byId("seed").value = Math.floor(Math.random() * 10 ** 6);
    generate();
  });
  byId("copy").addEventListener("click", copyLink);
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
      hideTip();
      stop();
    }
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part of the address after # is the view
    byId("results").focus();
  });
  addEventListener("hashchange", () => {
    if (steerers && readView(location.hash).isLink) openLink("");
  });
}

/** Shows what the link says; the texts too, if it was copied with texts. */
function openLink(first) {
  const view = readView(location.hash);
  writeControls({ ...view, prompt: view.isLink ? view.prompt : first });
  const unknown = steerers.restore(view.steering, view.shown);
  recolour();
  if (unknown.length) complain(`This link steers by ${unknown.join(" and ")}, which this server does not have.`);
  if (view.isLink && view.texts) generate(view.sweep);
}

function remember() {
  if (!steerers) return;
  const view = { ...readControls(), steering: steerers.view, shown: steerers.shown?.name };
  const link = writeView({ ...view, texts: hasTexts, sweep: hasTexts && sweep.isShown });
  history.replaceState(null, "", link);
}

/** Everything anew. */
function generate(withSweep = false) {
  if (!isReady()) return;
  sweep.clear();
  hasTexts = true;
  write(true);
  if (withSweep === true) runSweep();
}

/** What was changed decides which of the texts is written again. */
function changed() {
  remember();
  recolour();
  if (!hasTexts || complaint(readControls())) return;
  write(false);
}

function amountMoves() {
  recolour();
  if (hasTexts && !steered.isWriting) drawTrajectory();
}

async function write(isForced) {
  const controls = readControls();
  const { path, request } = requestOf(controls, model);
  const opening = controls.mode === "text" ? controls.prompt : "";
  const asked = [
    [unsteered, steerers.observing],
    [steered, steerers.steering()],
  ];
  complain("");
  keep(null);
  remember();
  recolour();
  const runs = asked.map(([arm, steering]) => {
    const whole = steering.length ? { ...request, steering } : request;
    return arm.run(path, whole, opening, isForced);
  });
  busy();
  const ended = await Promise.allSettled(runs);
  busy();
  hasTexts = arms.some((arm) => arm.isWriting || arm.text.tokens.length);
  byId("plane-panel").hidden ||= !hasTexts;
  drawChart();
  ended.filter(({ status }) => status === "rejected").forEach(({ reason }) => complain(reason));
  if (!ended[1].value) return;
  const counts = arms.map((arm) => `${arm.name} ${arm.text.tokens.length} tokens`);
  say(`Written: ${counts.join(", ")}.`);
  drawTrajectory();
}

async function runSweep() {
  if (!isReady() || !steerers.shown) return;
  const { path, request } = requestOf(readControls(), model);
  const requestAt = (level) => ({
    ...request,
    steering: level === null ? steerers.observing : steerers.steering(level),
  });
  complain("");
  const run = sweep.run(path, requestAt, steerers.shown, fullColour());
  if (!hasTexts) {
    hasTexts = true;
    write(true);
  }
  remember();
  busy();
  try {
    if (await run) say("The level sweep is complete.");
  } catch (error) {
    complain(error);
  }
  busy();
}

function stop() {
  const isWriting = arms.some((arm) => arm.isWriting) || sweep.isWriting;
  for (const one of [...arms, sweep]) one.stop();
  if (isWriting) say("Stopped.");
}

function isReady() {
  if (!steerers) return false;
  const wrong = complaint(readControls());
  complain(wrong);
  return !wrong;
}

function busy() {
  const isWriting = arms.some((arm) => arm.isWriting) || sweep.isWriting;
  byId("stop").disabled = !isWriting;
  byId("results").setAttribute("aria-busy", isWriting);
  if (isWriting) say("Writing …");
}

/** Nats at which a tint is at its strongest. */
function fullColour() {
  const bounds = [steerers.threshold(FULL_COLOUR), steerers.threshold(-FULL_COLOUR)];
  return Math.max(...bounds.map((bound) => Math.abs(bound ?? 0))) || 1;
}

function recolour() {
  const { shown } = steerers;
  const scale = fullColour();
  for (const arm of arms) {
    arm.text.colour(shown?.name, scale);
    arm.measure();
  }
  sweep.colour(shown?.name, scale);
  byId("key").hidden = !shown?.hasBarrier;
  byId("key-name").textContent = `Colour: the log-density ratio h of ${shown?.name}, in nats`;
  byId("key-low").textContent = number(-scale, 1);
  byId("key-high").textContent = number(scale, 1);
  byId("sweep").disabled = !shown;
  drawSoon();
}

function drawChart() {
  const { shown } = steerers;
  const lines = arms.map((arm) => ({
    name: arm.name,
    values: arm.text.tokens.map((token) => token.values[shown?.name]),
  }));
  byId("barrier-panel").hidden = !shown?.hasBarrier || !hasTexts;
  const isLevel = shown?.quantity === "level" && shown.isOn && shown.hasBarrier;
  const value = isLevel ? steerers.threshold(shown.amount) : null;
  chart.show(lines, isLevel ? { value, label: `level ${number(shown.amount, 1)}` } : null);
}

const drawTrajectory = settled(async () => {
  const { shown } = steerers;
  byId("plane-panel").hidden = !shown?.hasBarrier || !hasTexts;
  if (!shown?.hasBarrier || !hasTexts) return;
  drawing?.abort();
  const controller = new AbortController();
  drawing = controller;
  const token = steered.text.tokens[chosen]?.text.trim();
  byId("plane-title").textContent =
    chosen === null ? "Trajectory of the last activation" : `Trajectory that led to ‘${token}’`;
  const { prompt, mode } = readControls();
  try {
    const drawn = await post(
      "playground/trajectory",
      {
        ...promptOf(prompt, mode),
        text: steered.text.text,
        steering: steerers.following,
        shown: shown.name,
        ...(chosen === null ? {} : { token: chosen }),
      },
      controller.signal,
    );
    drawPlane(byId("plane"), drawn);
    byId("plane-note").textContent = told(drawn);
  } catch (error) {
    if (controller.signal.aborted) return;
    byId("plane").replaceChildren();
    byId("plane-note").textContent = error.message;
  }
}, 60);

/** Marks a token everywhere. */
function mark(index) {
  for (const arm of arms) arm.text.mark(index);
  chart.mark(index);
}

/** Draws the trajectory of the activation that a token was chosen from; again, that of the last. */
function pick(index) {
  keep(index === chosen ? null : index);
  drawTrajectory();
}

function keep(index) {
  chosen = index;
  steered.text.keep(index);
}

async function copyLink() {
  remember();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied; it brings this view back.");
  } catch {
    say(`Copy this link: ${location.href}`);
  }
}

function say(text) {
  byId("status").textContent = text;
}

function complain(error) {
  const text = typeof error === "string" ? error : error.message;
  byId("error").textContent = text;
  byId("error").hidden = !text;
  if (text) say("");
}
