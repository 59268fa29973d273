// What a reviewer decides: sent at once, one thing after the other, and shown as the server has it then. A version goes
// along with each change, so that a decision on what another changed meanwhile is refused. How much is left and saved,
// and what wasn't taken, and why, is told above the records.
"use strict";

const reviewDecisions = (() => {
  const MOST_NAMED = 5; // reasons of refusals that are told at once
  const MOST_CHANGES = 5; // lines that are kept for a screen reader
  const AGAIN = 1500; // milliseconds until what wasn't answered is sent again

  const byId = (id) => document.getElementById(id);
  const pause = (milliseconds) => new Promise((ready) => setTimeout(ready, milliseconds));
  const found = (view, id) => view.expressions.find((e) => e.id === id);
  const counted = (n, name, names = `${name}s`) => `${n.toLocaleString("en")} ${n === 1 ? name : names}`;

  const views = new Map(); // of records, by place
  const decided = {}; // by place, letters for a record's items: `Reviewable.decided` says which
  let sample = null; // the items of a sample, in their order
  let seen = 0; // lines of decisions that this page knows
  const left = { boxes: 0, phrases: 0, all: 0, allBoxes: 0, toMend: 0 };
  let waiting = []; // decisions that are sent, and not answered
  let done = []; // to undo, those together that are taken back in one
  let undone = []; // to redo
  let refused = []; // since the last action, each with its items
  let lost = ""; // why nothing is saved, while that is so
  const hooks = { unsent: () => 0, told: () => {} }; // how many marks of the grid aren't sent; counts are told

  // What an item is by now: its letter, small, and whether this reviewer decided last.
  const letterOf = ({ place, number }) => (decided[place] || "")[number] || "-";
  const stateOf = (item) => letterOf(item).toLowerCase();
  const isDecided = (item) => stateOf(item) !== "-";
  const isRejected = (item) => ["w", "m"].includes(stateOf(item));
  // Whether an item is among those that `of`, in the address, asks for.
  function isAsked(of, item) {
    const state = stateOf(item);
    if (of === "rejected") return isRejected(item);
    if (of === "mend") return state === "m";
    if (of === "mine") return letterOf(item) !== state && state !== "g";
    if (of === "all") return state !== "g";
    return state === "-" && (of !== "empty" || item.box === null);
  }

  // An item's record, phrase and box as they are by now; none where they are gone.
  const viewOf = ({ place }) => views.get(place);
  const idOf = ({ place, e }) => views.get(place).written[e];
  const phraseOf = (item) => found(viewOf(item), idOf(item));
  function placeOf(item) { // the index among its phrase's boxes of an item's box, or of the one drawn in its place
    const { instances } = phraseOf(item) || { instances: [] };
    const place = instances.findIndex(({ box }) => box === item.box);
    return place >= 0 ? place : null;
  }
  // Other phrases of the class that have a box of the item's thing.
  function othersOf(item) {
    const view = viewOf(item), box = phraseOf(item)?.instances[placeOf(item)];
    const texts = (box?.also || []).map(([id]) => found(view, id)?.text);
    return [...new Set(texts)].filter((text) => text && text !== phraseOf(item).text);
  }
  // What the server answers, as JSON; an error whose `said` is true is one that the server told.
  async function answer(path, body) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(path, body && { method: "POST", headers, body: JSON.stringify(body) });
    const said = await response.json();
    if (!response.ok) throw Object.assign(new Error(said.error), { said: true });
    return said;
  }
  // Take in what is decided by now, and records as they are.
  function learn({ decided: letters, views: records = {}, seen: lines }) {
    for (const [place, now] of Object.entries(letters)) {
      count(Number(place), 1);
      decided[place] = now;
      count(Number(place), -1);
    }
    for (const view of Object.values(records)) views.set(view.place, view);
    seen = lines;
    tellSaved();
  }
  // Add the decided items of a record to what is left, or take them away.
  function count(place, by) {
    for (const item of page.itemsOf(place)) {
      if (!isDecided(item) || !isOfSample(item)) continue;
      left[item.box === null ? "phrases" : "boxes"] += by;
      if (stateOf(item) === "m") left.toMend -= by;
    }
  }
  const isOfSample = (item) => !sample || sample.some(({ place, number }) => place === item.place && number === item.number);
  const allItems = () => sample || [...page.rows().keys()].flatMap(page.itemsOf);
  // Ask for the index; `take` is told its rows.
  async function begin(take) {
    const said = await answer("index");
    take(said.rows);
    sample = said.sample && said.sample.map(([place, number]) => page.itemsOf(place)[number]);
    for (const { box } of allItems()) {
      left.all += 1;
      left[box === null ? "phrases" : "boxes"] += 1;
    }
    left.allBoxes = left.boxes;
    learn(said);
  }
  // Records at places, which are asked for where they aren't here, or `again`.
  async function viewsAt(places, again = false) {
    const missing = [...new Set(places)].filter((place) => again || !views.has(place));
    if (missing.length) learn(await answer(`records?since=${seen}&places=${missing}`));
    return places.map((place) => views.get(place));
  }

  // Errors, hints and what changed have places of their own, whose size doesn't change with what they say.
  const tell = (text) => byId("refused").replaceChildren(recordPage.pageText(text));
  const hint = (text, button) => byId("hint").replaceChildren(recordPage.pageText(text), ...(button ? [" ", button] : []));
  function announce(text) { // to a screen reader
    const list = byId("changes");
    list.append(recordPage.node("p", null, text));
    while (list.children.length > MOST_CHANGES) list.firstChild.remove();
  }
  function whyRefused() {
    if (!refused.length) return "";
    const all = [...new Set(refused.map(({ error }) => error))];
    const more = all.length > MOST_NAMED ? `; and ${all.length - MOST_NAMED} more` : "";
    return `Not taken: ${all.slice(0, MOST_NAMED).join("; ")}${more}. Look again: this is how it stands now.`;
  }
  const leftText = () => `${left.boxes.toLocaleString("en")} of ${counted(left.allBoxes, "box", "boxes")}, ` +
    `${counted(left.phrases, "phrase")} without a box`;
  function savedText() {
    if (waiting.length) return `${waiting.length} not saved yet`;
    if (refused.length) return `all saved but ${refused.length}`;
    return hooks.unsent() ? `${counted(hooks.unsent(), "mark")} unsaved` : "all saved";
  }
  function tellSaved() {
    byId("left").textContent = leftText();
    byId("progress").max = Math.max(1, left.all);
    byId("progress").value = left.all - left.boxes - left.phrases;
    byId("saved").textContent = savedText();
    byId("download").hidden = !lost;
    hooks.told();
  }
  // An action begins: what was refused before it has been read.
  function forget() {
    refused = [];
    tell("");
    hint("");
  }

  // Acts with those that follow: what is decided on a box is decided on all boxes of its thing, which other phrases of
  // the class have. Deleting a phrase leaves the others'.
  function withSameThings(view, acts) {
    const isNamed = (id, box) => acts.some((act) => act.id === id && String(act.box) === String(box));
    const isMeant = (act, { bbox }) => act.absent || String(act.box) === String(bbox);
    return acts.flatMap((act) => {
      const meant = (found(view, act.id)?.instances || []).filter((instance) => isMeant(act, instance));
      const others = meant.flatMap(({ also }) => also.map(([id, number]) => ({ id,
        box: found(view, id)?.instances.find(({ box }) => box === number)?.bbox })));
      const follow = act.absent ? { gone: true } : act;
      return [act, ...others.filter(({ id, box }) => box && !isNamed(id, box)).map((other) => ({ ...follow, ...other }))];
    });
  }

  // Send decisions until the server has answered, and return those that it took, with the `ids` of what they are on.
  async function send(decisions) {
    const taken = [];
    for (waiting = decisions; waiting.length;) taken.push(...await sendSome(apart(waiting)));
    return taken;
  }
  // Those that can be sent at once: a second one on a phrase needs the version that the first one leaves.
  function apart(decisions) {
    const busy = new Set();
    return decisions.filter(({ record, acts }) => {
      const names = acts.map(({ id }) => `${record} ${id}`);
      const isFree = !names.some((name) => busy.has(name));
      names.forEach((name) => busy.add(name));
      return isFree;
    });
  }
  async function sendSome(decisions) {
    tellSaved();
    decisions.forEach(stamp);
    let said = null;
    while (!said) {
      try {
        said = await answer(`decide?since=${seen}`, { decisions: decisions.map(({ items, ...decision }) => decision) });
      } catch (error) {
        const kept = "Your last decision is kept in this page and sent";
        lost = error.said ? `Not saved: ${error.message}. ${kept} again.` : `The server doesn't answer. ${kept} when it does.`;
        tell(lost);
        tellSaved();
        await pause(AGAIN);
      }
    }
    waiting = waiting.filter((decision) => !decisions.includes(decision));
    lost = "";
    const told = decisions.map((decision, n) => ({ ...decision, ...said.answers[n] }));
    refused.push(...told.filter(({ error }) => error));
    tell(whyRefused());
    learn(said);
    return told.filter(({ error }) => !error);
  }
  const newUid = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`;
  // Give a decision the versions of its expressions that the reviewer saw.
  function stamp(decision) {
    const ids = decision.acts.map(({ id }) => id).filter(Boolean);
    decision.versions = Object.fromEntries(ids.map((id) => [id, found(views.get(decision.place), id)?.version]));
  }
  // A decision on record `view` by acts, as `named_acts` of _acts.py takes them; `items` are what is decided by it.
  const decisionOf = (view, acts, { items = [], ...more } = {}) => ({ uid: newUid(), place: view.place, record: view.key,
    digest: view.digest, acts: withSameThings(view, acts), items, ...more });
  // Take decisions, which one undo takes back.
  async function commit(decisions) {
    const taken = await send(decisions);
    if (taken.length) done.push(taken);
    if (taken.length) undone = [];
    return taken;
  }
  // Take the last decisions back, or make those taken back last again. Returns them, the last first; null for none.
  async function undo(again = false) {
    const [from, to] = again ? [undone, done] : [done, undone];
    const last = from.pop()?.reverse();
    if (!last) return null;
    const taken = await send(last.map((decision) =>
      ({ ...decision, uid: newUid(), acts: [], undoes: decision.uid, comment: undefined })));
    if (taken.length) to.push(taken);
    return last;
  }
  // The address of a file with the decisions that the server doesn't have, for a download.
  function fileOf() {
    waiting.forEach(stamp);
    const { who } = page.about.review;
    const lines = waiting.map(({ items, ...decision }) => `${JSON.stringify({ ...decision, ...(who && { who }) })}\n`);
    return URL.createObjectURL(new Blob(lines));
  }
  return {
    hooks, begin, viewsAt, found, counted, isDecided, isRejected, isAsked, viewOf, idOf, phraseOf, placeOf, othersOf,
    pause, tell, hint, announce, leftText, whyRefused, tellSaved, forget, decisionOf, commit, undo, fileOf, left,
    sample: () => sample,
    refused: () => refused.flatMap(({ items }) => items),
    isLost: () => lost !== "",
    mayBeLost: () => waiting.length > 0 || hooks.unsent() > 0,
  };
})();
