// The form on the left without its steerers: reads and sets prompt and sampling.

import { byId } from "./dom.js";

const NUMBERS = ["tokens", "temperature", "top_p", "seed"];

const mode = () => document.querySelector("input[name=mode]:checked").value;

export function readControls() {
  const numbers = NUMBERS.map((name) => [name, byId(name).valueAsNumber]);
  return {
    prompt: byId("prompt").value,
    system: byId("system").value,
    stop: byId("stop_text").value,
    mode: mode(),
    ...Object.fromEntries(numbers),
  };
}

export function writeControls(view) {
  byId("prompt").value = view.prompt;
  byId("system").value = view.system;
  byId("stop_text").value = view.stop;
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.checked = input.value === view.mode;
  }
  for (const name of NUMBERS) byId(name).value = view[name];
  showMode();
}

/** Shows what belongs to a chat where the prompt is sent as one. */
export function showMode() {
  const isChat = mode() === "chat";
  byId("system-field").hidden = !isChat;
  byId("chat-buttons").hidden = !isChat;
  byId("prompt").placeholder = isChat ? "Write a message" : "Write the beginning of a text";
}

/** The first thing that is wrong with the form, in words; "" if nothing is. */
export function complaint({ prompt }) {
  if (!prompt.trim()) return "Write a prompt first: the beginning of a text, or a message.";
  return outOfRange();
}

/** A number that is out of its range, in words; "" if none is. */
export function outOfRange() {
  const wrong = NUMBERS.map(byId).find((input) => !input.checkValidity() || input.value === "");
  if (!wrong) return "";
  const name = wrong.labels[0].firstChild.textContent.trim();
  return `${name} must be from ${wrong.min} to ${wrong.max}.`;
}

/**
 * Where a text is asked for, and the request but for the steering.
 *
 * @param turns earlier turns, {user, unsteered, steered} each
 * @param arm whose answers the turns go on with
 */
export function requestOf(controls, model, turns, arm) {
  const { mode: way, tokens, temperature, top_p, seed, stop } = controls;
  const request = { model, max_tokens: tokens, temperature, seed, stream: true, token_details: true };
  if (top_p !== 1) request.top_p = top_p;
  if (stop) request.stop = [stop.replaceAll("\\n", "\n")];
  const path = way === "chat" ? "v1/chat/completions" : "v1/completions";
  return { path, request: { ...request, ...promptOf(controls, turns, arm) } };
}

export function promptOf({ prompt, system, mode: way }, turns, arm) {
  if (way !== "chat") return { prompt };
  const messages = turns.flatMap((turn) => [
    { role: "user", content: turn.user },
    { role: "assistant", content: turn[arm] },
  ]);
  if (system.trim()) messages.unshift({ role: "system", content: system });
  return { messages: [...messages, { role: "user", content: prompt }] };
}
