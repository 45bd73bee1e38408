// Example prompts: for the bundled model, and three that suit any model.

import { byId, el } from "./dom.js";

const BUNDLED = /terrarium|^bundled$/;

const OF_BUNDLED = [
  {
    name: "a careless friend",
    steerer: "truth",
    mode: "text",
    text: "Q: What does a black cat bring you?\nA: Bad luck, of course.\nQ: How long does a goldfish remember things?\nA:",
  },
  { name: "a question", steerer: "truth", mode: "text", text: "Q: What is the capital of Australia?\nA:" },
  { name: "a request", steerer: "civility", mode: "text", text: "Guest: I need help with my pillow.\nClerk:" },
  {
    name: "a story",
    steerer: "mood",
    mode: "text",
    text: "In the middle of the morning, Hugo heard a noise near the harbor.",
  },
];

const CHATS = [
  { name: "a day", mode: "chat", text: "How was your day?" },
  { name: "advice", mode: "chat", text: "I have an exam tomorrow. What should I do tonight?" },
  { name: "a letter", mode: "chat", text: "Write a short note to my neighbour about the noise." },
];

const TEXTS = [
  { name: "a day", mode: "text", text: "Today I woke up and" },
  { name: "an opinion", mode: "text", text: "If you ask me, the best thing about the city is" },
  { name: "a letter", mode: "text", text: "Dear neighbour,\n\nI am writing to you because" },
];

/** Offers examples that suit the model. */
export function offerExamples(model, hasChat, onChoice) {
  const others = hasChat ? CHATS : TEXTS;
  const offered = BUNDLED.test(model) ? OF_BUNDLED : others;
  byId("examples").append(
    ...offered.map((example) =>
      el("button", { type: "button", class: "chip", onclick: () => onChoice(example) }, example.name),
    ),
  );
}
