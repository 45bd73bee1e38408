// Entry point of the playground: connects controls, texts, charts and link.

import { get, post } from "./api.js";
import { Arm } from "./arm.js";
import { BarrierChart } from "./barrier_chart.js";
import { complaint, outOfRange, promptOf, readControls, requestOf, showMode, writeControls } from "./controls.js";
import { byId, el, number, painted, settled } from "./dom.js";
import { offerExamples } from "./examples.js";
import { drawPlane, told } from "./plane.js";
import { Steerers } from "./steerers.js";
import { LEVELS, Sweep } from "./sweep.js";
import { TimeLeft } from "./time_left.js";
import { hideTip } from "./tip.js";
import { readView, writeView } from "./view.js";

const FULL_COLOUR = 1.5; // the level at which a tint is at its strongest
const PAUSE = 250; // milliseconds without a change before anything is asked for

const NARROW = matchMedia("(max-width: 60rem)"); // results are below the form

let model = "";
let turns = []; // earlier turns of the chat, {user, unsteered, steered} each
let steerers;
let chosen = null; // the token whose trajectory is drawn; null for the last activation
let hasTexts = false;
let drawing = null;

const drawSoon = painted(() => drawChart());
const timeLeft = new TimeLeft();
const arms = ["unsteered", "steered"].map(
  (name) => new Arm(name, { token: came, point: mark, pick: name === "steered" ? pick : undefined }),
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
  const hasChat = models.data[0].has_chat_template;
  offerExamples(model, hasChat, choose);
  byId("generate").disabled = false;
  openLink(hasChat);
}

/** Takes an example. */
function choose({ text, steerer, mode }) {
  newChat();
  writeControls({ ...readControls(), prompt: text, mode });
  if (steerer) steerers.useOnly(steerer);
  generate();
}

function came() {
  timeLeft.add();
  if (arms.some((arm) => arm.isWriting) || sweep.isWriting) sayWriting();
  drawSoon();
}

function listen() {
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  byId("controls").addEventListener("change", () => {
    showMode();
    complain(outOfRange());
    remember();
  });
  byId("reply").addEventListener("click", reply);
  byId("fresh").addEventListener("click", newChat);
  for (const input of document.querySelectorAll("input[name=tint]")) {
    input.addEventListener("change", recolour);
  }
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
    if (steerers && readView(location.hash).isLink) openLink();
  });
}

/** Shows what the link says; the texts too, if it was copied with texts. */
function openLink(hasChat = false) {
  const view = readView(location.hash);
  turns = view.turns;
  writeControls(view.isLink ? view : { ...view, mode: hasChat ? "chat" : "text" });
  showTurns();
  const unknown = steerers.restore(view.steering, view.shown);
  recolour();
  if (unknown.length) complain(`This link steers by ${unknown.join(" and ")}, which this server does not have.`);
  if (view.isLink && view.texts) generate(view.sweep);
}

function remember() {
  if (!steerers) return;
  const view = { ...readControls(), turns, steering: steerers.view, shown: steerers.shown?.name };
  const link = writeView({ ...view, texts: hasTexts, sweep: hasTexts && sweep.isShown });
  history.replaceState(null, "", link);
}

/** Everything anew. */
function generate(withSweep = false) {
  if (!isReady()) return;
  sweep.clear();
  hasTexts = true;
  write(true);
  if (NARROW.matches) byId("results").scrollIntoView({ block: "start" });
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
    const { path, request } = requestOf(controls, model, turns, arm.name);
    const whole = steering.length ? { ...request, steering } : request;
    return arm.run(path, whole, opening, isForced);
  });
  timeLeft.start(controls.tokens * arms.filter((arm) => arm.isWriting).length);
  byId("intro").hidden = true;
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
  byId("reply").disabled = false;
  drawTrajectory();
}

async function runSweep() {
  if (!isReady() || !steerers.shown) return;
  const controls = readControls();
  const { path, request } = requestOf(controls, model, turns, "steered");
  const requestAt = (level) => ({
    ...request,
    steering: level === null ? steerers.observing : steerers.steering(level),
  });
  complain("");
  byId("intro").hidden = true;
  timeLeft.start(controls.tokens * (LEVELS.length + 1));
  const run = sweep.run(path, requestAt, steerers.shown, fullColour(), came);
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
  if (isWriting) sayWriting();
}

function sayWriting() {
  say(["Writing …", timeLeft.words].filter(Boolean).join(" "));
}

/** What was answered becomes a turn of the chat, in each arm its own answer. */
function reply() {
  const { prompt } = readControls();
  turns.push({ user: prompt, unsteered: unsteered.text.text, steered: steered.text.text });
  byId("prompt").value = "";
  byId("prompt").focus();
  byId("reply").disabled = true;
  showTurns();
  remember();
}

function newChat() {
  turns = [];
  byId("reply").disabled = true;
  showTurns();
}

function showTurns() {
  byId("turns").hidden = !turns.length;
  byId("fresh").disabled = !turns.length;
  byId("turns").replaceChildren(
    ...turns.map(({ user, unsteered: plain, steered: moved }) =>
      el("li", {}, el("b", {}, user), el("p", {}, `unsteered: ${plain}`), el("p", {}, `steered: ${moved}`)),
    ),
  );
}

/** Nats at which a tint is at its strongest. */
function fullColour() {
  const bounds = [steerers.threshold(FULL_COLOUR), steerers.threshold(-FULL_COLOUR)];
  return Math.max(...bounds.map((bound) => Math.abs(bound ?? 0))) || 1;
}

function recolour() {
  const { shown } = steerers;
  const scale = fullColour();
  const tint = document.querySelector("input[name=tint]:checked").value;
  const isMoved = tint === "moved";
  for (const arm of arms) {
    arm.text.colour(shown?.name, scale, tint);
    arm.measure();
  }
  sweep.colour(shown?.name, scale, tint);
  byId("key").hidden = !shown?.hasBarrier;
  byId("key-name").textContent = isMoved
    ? `Colour: how far steering moved each token, by what ${shown?.name} measures`
    : `Colour: where each token was before steering, by what ${shown?.name} measures`;
  byId("key-low").textContent = `orange: ${isMoved ? "away from" : "unlike"} ${shown?.name}`;
  byId("key-high").textContent = `blue: ${isMoved ? "towards" : "like"} ${shown?.name}`;
  byId("scale").title = `full colour at ${number(-scale, 1)} and ${number(scale, 1)} nats of the log-density ratio h`;
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
  try {
    const drawn = await post(
      "playground/trajectory",
      {
        ...promptOf(readControls(), turns, "steered"),
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
