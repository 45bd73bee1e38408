// Client of the server: requests, error messages, server-sent events.

import { byId } from "./dom.js";

const TOKEN = "odesteer.token";
const TRIES = 5;

/** What went wrong, in words for a person. */
export class ServerError extends Error {}

/** The answer to a GET, as data. */
export const get = async (path, signal) => (await request(path, { signal })).json();

/** The answer to a POST, as data. */
export const post = async (path, body, signal) =>
  (await request(path, { method: "POST", body: JSON.stringify(body), signal })).json();

/** The events of a POST that streams, one after another, as data. */
export async function* stream(path, body, signal) {
  const response = await request(path, { method: "POST", body: JSON.stringify(body), signal });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new ServerError(event.error.message);
    yield event;
  }
  throw new ServerError("The server ended the text early. Is it shutting down?");
}

async function request(path, options) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await sent(path, options);
    if (response.ok) return response;
    if (response.status === 401 && (await asked())) continue;
    if (response.status === 429 && attempt < TRIES) {
      await pause(Number(response.headers.get("retry-after")) || 1, options.signal);
      continue;
    }
    throw new ServerError(await words(response));
  }
}

async function sent(path, options) {
  const headers = {};
  if (options.body) headers["content-type"] = "application/json";
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is odesteer serve still running?");
  }
}

async function words(response) {
  const text = await response.text();
  try {
    const said = JSON.parse(text);
    const message = said.error?.message ?? said.detail;
    if (typeof message === "string") return message;
  } catch {
    // not an error body of this server
  }
  return `The server answered ${response.status} ${response.statusText}.`.replace(" .", ".");
}

let asking = null;

/** Asks the person for the token; several requests that need it wait for one answer. */
function asked() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        const given = dialog.returnValue === "use" && byId("token").value;
        if (given) sessionStorage.setItem(TOKEN, given);
        dialog.returnValue = "";
        resolve(Boolean(given));
      },
      { once: true },
    );
    byId("token").value = "";
    dialog.showModal();
  });
  return asking;
}

/** The data of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have ended by itself
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
