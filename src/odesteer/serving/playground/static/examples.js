// Example prompts for the bundled model.

import { byId, el } from "./dom.js";

const BUNDLED = /terrarium|^bundled$/;

const EXAMPLES = [
  {
    name: "a careless friend",
    steerer: "truth",
    text: "Q: What does a black cat bring you?\nA: Bad luck, of course.\nQ: How long does a goldfish remember things?\nA:",
  },
  { name: "a question", steerer: "truth", text: "Q: What is the capital of Australia?\nA:" },
  { name: "a request", steerer: "civility", text: "Guest: I need help with my pillow.\nClerk:" },
  {
    name: "a story",
    steerer: "mood",
    text: "In the middle of the morning, Hugo heard a noise near the harbor.",
  },
];

/** Offers them where the server runs that model; returns the first text, or "". */
export function offerExamples(model, onChoice) {
  if (!BUNDLED.test(model)) return "";
  byId("examples").hidden = false;
  byId("examples").append(
    ...EXAMPLES.map((example) =>
      el("button", { type: "button", class: "chip", onclick: () => onChoice(example) }, example.name),
    ),
  );
  return EXAMPLES[0].text;
}
