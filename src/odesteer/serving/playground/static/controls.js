// The form on the left without its steerers: reads and sets prompt and sampling.

import { byId } from "./dom.js";

const NUMBERS = ["tokens", "temperature", "seed"];

const mode = () => document.querySelector("input[name=mode]:checked").value;

export function readControls() {
  const numbers = NUMBERS.map((name) => [name, byId(name).valueAsNumber]);
  return { prompt: byId("prompt").value, mode: mode(), ...Object.fromEntries(numbers) };
}

export function writeControls(view) {
  byId("prompt").value = view.prompt;
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.checked = input.value === view.mode;
  }
  for (const name of NUMBERS) byId(name).value = view[name];
}

/** The first thing that is wrong with the form, in words; "" if nothing is. */
export function complaint({ prompt }) {
  if (!prompt.trim()) return "Write a prompt first: the beginning of a text, or a message.";
  const wrong = NUMBERS.map(byId).find((input) => !input.checkValidity() || input.value === "");
  if (!wrong) return "";
  const name = wrong.labels[0].firstChild.textContent.trim();
  return `${name} must be from ${wrong.min} to ${wrong.max}.`;
}

/** Where a text is asked for, and the request but for the steering. */
export function requestOf({ prompt, mode: way, tokens, temperature, seed }, model) {
  const request = { model, max_tokens: tokens, temperature, seed, stream: true, token_details: true };
  return way === "chat"
    ? { path: "v1/chat/completions", request: { ...request, ...promptOf(prompt, way) } }
    : { path: "v1/completions", request: { ...request, ...promptOf(prompt, way) } };
}

export const promptOf = (prompt, way) =>
  way === "chat" ? { messages: [{ role: "user", content: prompt }] } : { prompt };
