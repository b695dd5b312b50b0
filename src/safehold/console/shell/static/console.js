// Live updates and keys of every page. No markup is made here: text goes in as text.
"use strict";

const page = document.getElementById("live");
let state = null;

// The page's news replace the light's text as well: it is set again afterwards.
function shine(now) {
  state = now ?? state;
  const light = document.getElementById("light");
  if (!light || !state) return;
  light.className = state === "live" ? "live on" : "live";
  light.textContent = state;
}
document.addEventListener("htmx:after:swap", () => shine());

function ask() {
  if (page) page.dispatchEvent(new CustomEvent("news"));
}

function follow() {
  let poll = 0;
  const source = new EventSource("/live");
  source.addEventListener("news", () => ask());
  source.onopen = () => {
    clearInterval(poll);
    poll = 0;
    shine("live");
  };
  source.onerror = () => {
    shine("asks every 15 s");
    // A refused stream does not come back by itself: ask as long as it is away.
    if (!poll) poll = setInterval(ask, 15000);
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 60000);
  };
  addEventListener("pagehide", () => source.close());
}
if (page && page.hasAttribute("hx-get")) follow();

// A control with data-key is pressed by that key, where nobody is typing.
addEventListener("keydown", (event) => {
  const at = event.target;
  const typing = at instanceof HTMLElement &&
    (at.matches("textarea, select") || (at.matches("input") && !["radio", "checkbox"].includes(at.type)));
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = (event.shiftKey ? "Shift " : "") + event.key.toUpperCase();
  for (const control of document.querySelectorAll("[data-key]")) {
    if (control.dataset.key === key && !control.disabled) {
      event.preventDefault();
      control.focus();
      control.click();
      return;
    }
  }
});
