// What the page of a review says above its records: how much is left and saved, and what wasn't taken, and why.
"use strict";

const reviewTelling = (() => {
  const MOST = 5; // refusals that are named
  const KEYS = {
    Enter: "grid: accept all that aren't marked, and go on",
    "11 … 70, click": "grid: mark a box as wrong",
    "1 … 99, click": "single: pick a phrase; again: its next box",
    "a / x": "accept / reject the picked box, or all of the picked phrase; go on", m: "not in the picture",
    drag: "draw a box; move or resize the picked one", f: "draw by four extreme points",
    arrows: "move by 1 px, with Shift by 10; with Alt: resize",
    Delete: "delete the picked box, or the phrase",
    "e / n": "make the selection in the caption the phrase / a new phrase",
    "s / j": "split the phrase at the selection / join it with the next one",
    c: "comment", "z / y": "undo / redo", "] / [": "next / previous, undecided",
    "wheel, + − 0": "zoom; drag with Space or two fingers: pan",
    Escape: "pick the phrase without a box; then nothing: a and x mean all that nobody judged",
    "?": "these keys",
  };
  const byId = (id) => document.getElementById(id);
  let refused = [], lost = ""; // since the last action, each with its items; why nothing is saved

  const tell = (text) => byId("refused").replaceChildren(recordPage.pageText(text));
  function why() {
    const all = [...new Set(refused.map(({ error }) => error))], more = all.length - MOST;
    const told = `${all.slice(0, MOST).join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
    return all.length ? `Not taken: ${told}. Look again: this is how it stands now.` : "";
  }
  // So many items are left, `waiting` decisions not saved yet, for the reason `error` where there is one.
  function saving(left, waiting, isLocal, error) {
    const was = lost, kept = "What you decide is kept in this page and sent";
    lost = !error ? "" : error.said ? `Not saved: ${error.message}. ${kept} again.`
      : `The server doesn't answer. ${kept} when it does.`;
    byId("left").textContent = `${left.toLocaleString("en")} left`;
    byId("saved").textContent = waiting ? `${waiting} not saved yet`
      : isLocal ? "" : `all saved${refused.length ? ` but ${refused.length}` : ""}`;
    byId("download").hidden = !lost && !isLocal;
    if (lost || was) tell(lost || why());
  }
  function refuse(error, items) {
    refused.push({ error, items });
    tell(why());
  }
  // An action begins: what was refused before it has been read.
  function begin() {
    refused = [];
    tell(lost);
  }
  const failed = (error) => error && tell(`This page failed: ${error.message}. What is saved stays; load it anew.`);
  window.addEventListener("error", (event) => failed(event.error));
  window.addEventListener("unhandledrejection", (event) => failed(event.reason));
  const help = document.body.appendChild(recordPage.helpOf(KEYS));
  byId("help").addEventListener("click", () => help.showModal());
  return { tell, help, why, saving, refuse, begin, refused: () => refused.flatMap(({ items }) => items) };
})();
