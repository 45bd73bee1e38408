// Theme: the last choice or that of the system, set before the first paint.
"use strict";

(() => {
  const names = ["system", "light", "dark"];

  const read = () => {
    try {
      const name = localStorage.getItem("odesteer.theme");
      return names.includes(name) ? name : "system";
    } catch {
      return "system"; // storage may be switched off
    }
  };

  const apply = (name) => {
    document.documentElement.dataset.theme = name;
  };

  apply(read());

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => {
      button.textContent = `Theme: ${document.documentElement.dataset.theme}`;
    };
    say();
    button.addEventListener("click", () => {
      const now = names.indexOf(document.documentElement.dataset.theme);
      const next = names[(now + 1) % names.length];
      apply(next);
      say();
      try {
        localStorage.setItem("odesteer.theme", next);
      } catch {
        // without storage the choice lasts as long as the page
      }
    });
  });
})();
