// What the page of a review says above its records: how much is left and saved, and what wasn't taken, and why.
"use strict";

const reviewTelling = (() => {
  const MOST = 5; // refusals that are named
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
  const help = byId("keys");
  byId("help").addEventListener("click", () => help.showModal());
  return { tell, help, why, saving, refuse, begin, refused: () => refused.flatMap(({ items }) => items) };
})();
