// What a reviewer decides: shown at once, sent in order. A version goes along with each change, so that a decision on
// what another changed meanwhile is refused. How much is left and saved, and what wasn't taken, and why, stands above
// the records.
"use strict";

const reviewDecisions = (() => {
  const GRID = 60; // boxes on a page of the grid, decisions sent at once
  const MOST_NAMED = 5; // reasons of refusals that are told at once
  const MOST_CHANGES = 5; // lines that are kept for a screen reader

  const byId = (id) => document.getElementById(id);
  const pause = (milliseconds) => new Promise((ready) => setTimeout(ready, milliseconds));
  const found = (view, id) => view.expressions.find((e) => e.id === id);

  // The boxes of an expression, and an expression with what has changed in `more`, as a decision has them.
  const boxes = (e) => e.instances.map(({ bbox, verified }, from) => ({ from, bbox, verified }));
  const given = (e, more) => ({ status: e.status, verified: e.verified, instances: boxes(e), ...more });

  // The index among its phrase's boxes, as they are now, of an item's box or of the one drawn in its place; null where
  // it is gone.
  function placeOf(view, item) {
    const { instances } = found(view, item.id) || { instances: [] };
    const place = instances.findIndex(({ box }) => box === item.box);
    return place >= 0 ? place : null;
  }

  // What an item is by now, a box or a phrase without one; undefined where it was deleted.
  function judgedOf(view, item) {
    const e = found(view, item.id);
    return e && item.box !== null ? e.instances[placeOf(view, item)] : e;
  }

  // Other phrases of the class that have a box of the item's thing.
  const othersOf = ({ text, also }) => [...new Set(also.map(([, , other]) => other))].filter((other) => other !== text);

  // Whether a reviewer judged an item, deleted it, or drew another box in its place.
  function isDecided(view, item) {
    const judged = judgedOf(view, item);
    if (!judged) return true;
    return item.box === null ? Boolean(judged.reviewed_by) : typeof judged.verified === "boolean";
  }

  const isRejected = (view, item) => isDecided(view, item) && judgedOf(view, item)?.verified === false;

  // Whether an item is wrong, and no person has drawn a further box for it: as `_is_to_mend` of queues.py.
  function isToMend(view, item) {
    if (!isRejected(view, item)) return false;
    const { instances } = found(view, item.id);
    const rejected = instances.filter(({ verified }) => verified === false).length;
    const further = instances.filter(({ box, evidence }) => box === undefined && evidence === "person").length;
    return item.box === null || rejected > further;
  }

  // Whether an item is among those that `show` asks for. This page can't tell what another reviewer decided from its
  // own decisions: "mine" are both.
  function isShown({ show, record }, view, item) {
    if (show === "rejected") return isRejected(view, item);
    if (show === "mend") return isToMend(view, item);
    if (show === "mine") return isDecided(view, item) && Boolean(judgedOf(view, item));
    if (show === "all" || (!show && record)) return Boolean(judgedOf(view, item));
    return !isDecided(view, item) && (show !== "empty" || item.box === null);
  }

  // What the server answers, as JSON; an error whose `said` is true is one that the server told.
  async function answer(path, body) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(path, body && { method: "POST", headers, body: JSON.stringify(body) });
    const said = await response.json();
    if (!response.ok) throw saidError(said.error);
    return said;
  }
  const saidError = (message) => Object.assign(new Error(message), { said: true });

  const itemsOf = (wanted) => answer(`next?${new URLSearchParams(wanted)}`);

  // Changes of a record with those that follow: what is decided on a box is decided on all boxes of its thing, which
  // other phrases of the class have. Deleting a phrase leaves the others'.
  function withSameThings(view, changes) {
    const all = new Map(changes.map((change) => [change.id, change]));
    for (const { id, after } of changes) {
      const before = after ? found(view, id)?.instances || [] : [];
      before.forEach(({ bbox, verified, also }, from) => {
        const now = after.instances.find((box) => box.from === from);
        const isMoved = now && String(now.bbox) !== String(bbox);
        if (now && !isMoved && now.verified === verified) return;
        const judged = now && { verified: now.verified, unjudged: now.unjudged, ...(isMoved && { bbox: now.bbox }) };
        for (const [otherId, box] of also || []) followed(view, all, otherId, box, judged, after);
      });
    }
    return [...all.values()];
  }
  // Decide on a box of phrase `id` as on another one of its thing: `judged` says how, null where that one is gone.
  function followed(view, all, id, box, judged, decided) {
    const e = found(view, id);
    const from = e ? e.instances.findIndex((one) => one.box === box) : -1;
    const change = all.get(id) || (from >= 0 && { id, after: given(e, {}) });
    if (!change || !change.after) return;
    const { instances } = change.after;
    const place = instances.findIndex((one) => one.from === from);
    if (place < 0) return;
    if (judged) instances[place] = { ...instances[place], ...judged };
    else instances.splice(place, 1);
    const verified = decided.instances.length ? null : decided.verified;
    if (!instances.length) Object.assign(change.after, { status: "none", verified });
    all.set(id, change);
  }

  // What changes make of a record, as far as the page can tell before the server has.
  function applied(view, changes) {
    const next = structuredClone(view);
    changes.forEach((change) => applyTo(next.expressions, change, view));
    let colors = 0;
    next.expressions.forEach((e, n) => {
      e.index = n;
      const number = e.instances.length ? colors++ % recordPage.COLORS : null;
      e.color = number === null ? null : e.classColor ?? number;
    });
    return next;
  }
  // Change, delete or add the expression `id` among `rows`, in place.
  function applyTo(rows, { id, after }, view) {
    const place = rows.findIndex((e) => e.id === id);
    if (place >= 0) {
      rows.splice(place, 1, ...(after ? [changed(view, rows[place], after)] : []));
    } else if (after) { // it is new, and this page alone knows its id
      const fresh = { id, isOwn: true, reasons: [], check: "", span: null, instances: [], meaning: "" };
      rows.push(changed(view, fresh, after));
    }
  }
  // An expression as a change leaves it: `old` is what it was, `after` what the decision says.
  function changed(view, old, after) {
    const instances = after.instances.map((box) => ({ evidence: "person", score: null, ...boxBefore(view, old, box),
      bbox: box.bbox, verified: box.verified }));
    const units = (n) => [...view.caption].slice(0, n).join("").length; // UTF-16 units of the first n code points
    const span = after.char_span ? after.char_span.map(units) : old.span;
    const verified = wordOn(instances, after);
    return { ...old, ...after, instances, verified, span, reviewed_by: verified === null ? null : "you" };
  }
  // What is kept of the box that a new one was made from; nothing of one that is drawn now.
  function boxBefore(view, old, { from, of, bbox }) {
    if (of) return { ...found(view, of.id).instances[of.box], box: undefined };
    if (from === null) return {};
    const before = old.instances[from];
    return String(before.bbox) === String(bbox) ? before : { ...before, evidence: "person", score: null };
  }
  // The verdict on an expression, from those on its boxes: false with a wrong one, true if all are right, else null.
  function wordOn(instances, after) {
    const verdicts = instances.length ? instances.map((i) => i.verified) : [after.verified];
    if (verdicts.includes(false)) return false;
    return verdicts.every((verdict) => verdict === true) || null;
  }

  // What review.js does for this module: why() says why the item that is looked at is there; unsent() how many marks of
  // the grid aren't sent; counted() is told that counts are new; taken(items, view, old) which items were refused, and
  // what a decision has made of its record: `view`, `old` before, null where more decisions on it wait.
  const page = {};
  const views = new Map(); // by record's place
  const versions = new Map(); // by its key and an expression's id
  const nameOf = (key, id) => `${key} ${id}`;
  let waiting = []; // decisions to send; `ids`: of the expressions that each is on
  let done = []; // to undo, those together that are taken back in one
  let undone = []; // to redo
  let sending = false;
  let isHeld = false; // nothing is sent yet: more decisions come, to be sent together
  let asked = null; // what was asked for last
  let left = { boxes: 0, all_boxes: 0, phrases: 0, all_phrases: 0 };
  let shown = 0; // things that are asked for
  let toMend = 0;
  let since = performance.now(); // when the reviewer began to look at what is decided next
  let who = "";
  let refused = []; // since the last action, each with its items
  let lost = ""; // why nothing is saved, while that is so
  let wasLost = ""; // the same, when it was told last

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
    const named = all.slice(0, MOST_NAMED).join("; ");
    return `Not taken: ${named}${more}. Look again: this is how it stands now.`;
  }
  const counted = (n, name, names = `${name}s`) => `${n.toLocaleString("en")} ${n === 1 ? name : names}`;
  function leftText() {
    const boxesLeft = `${left.boxes.toLocaleString("en")} of ${counted(left.all_boxes, "box", "boxes")}`;
    return `${boxesLeft}, ${counted(left.phrases, "phrase")} without a box`;
  }
  function savedText() {
    if (waiting.length) return `${waiting.length} not saved yet`;
    if (refused.length) return `all saved but ${refused.length}`;
    if (page.unsent()) return `${counted(page.unsent(), "mark")} unsaved`;
    return "all saved";
  }
  function tellSaved() {
    byId("left").textContent = leftText();
    byId("progress").max = Math.max(1, left.all_boxes + left.all_phrases);
    byId("progress").value = left.all_boxes + left.all_phrases - left.boxes - left.phrases;
    byId("saved").textContent = savedText();
    byId("download").hidden = !lost;
    if (lost || wasLost) tell(lost || whyRefused());
    wasLost = lost;
  }
  // An action begins: what was refused before it has been read.
  function forget() {
    refused = [];
    tell(lost);
    hint("");
  }

  // Note the versions of a record's expressions, as the server has them, and return whether the page shows it now.
  // While decisions on it wait, the page doesn't, and versions of `ids` alone are noted: a decision on what another
  // changed is then refused, as its reviewer hasn't seen it.
  function learn(view, ids = []) {
    const isShownNow = !waiting.some((decision) => decision.record === view.key);
    for (const { id, version } of view.expressions) {
      if (isShownNow || ids.includes(id)) versions.set(nameOf(view.key, id), version);
    }
    if (isShownNow) views.set(view.place, view);
    return isShownNow;
  }
  async function ask(wanted) {
    const said = await itemsOf(wanted);
    Object.values(said.records).forEach((view) => learn(view));
    asked = wanted;
    who = said.who || who;
    count(said);
    tellSaved();
    return said;
  }
  function count(said) {
    left = said.progress;
    shown = said.shown;
    toMend = said.to_mend;
    page.counted();
  }
  // Put a decision into the queue and show `next`, what it makes of the record; returns its uid.
  function enqueue(action, view, ids, changes, next, more) {
    const uid = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`;
    const now = performance.now();
    waiting.push({ uid, ids, record: view.key, digest: view.digest, action, queue: page.why(), changes, seconds: (now - since) / 1000,
      ...more });
    if (!more.seconds) since = now;
    views.set(view.place, next);
    flush();
    return uid;
  }
  // Take a decision: it is shown at once, sent, and can be taken back.
  function commit(action, view, wanted, more = {}) {
    const changes = withSameThings(view, wanted);
    const next = { ...applied(view, changes), ...("comment" in more && { comment: more.comment }) };
    const ids = changes.map(({ id }) => id);
    const uid = enqueue(action, view, ids, changes, next, more);
    done.push([{ uid, ids, action, place: view.place, before: view, id: ids[0], items: more.items || [] }]);
    undone = [];
  }
  // What run() commits is sent together, and taken back by one undo.
  function together(run) {
    const first = done.length;
    held(run);
    if (done.length > first) done.push(done.splice(first).flat());
    flush();
  }
  function held(run) {
    isHeld = true;
    try {
      run();
    } finally {
      isHeld = false;
    }
  }

  // Take the last decisions back, or make those taken back last again. Returns them, the last first; null for none.
  function undo(again = false) {
    const [from, to] = again ? [undone, done] : [done, undone];
    const last = from.pop();
    if (!last) return null;
    held(() => to.push(last.reverse().map(takenBack)));
    flush();
    return last;
  }
  function takenBack(decision) {
    const now = views.get(decision.place);
    const comment = decision.action === "comment" && { comment: decision.before.comment };
    const uid = enqueue("undo", now, decision.ids, [], decision.before, { undoes: decision.uid, ...comment });
    return { ...decision, before: now, uid };
  }
  // Undo the drawing of a phrase's box, with how it was moved since. False, and nothing done, where anything else came
  // after it.
  function undraw(view, { id, instances }, box) {
    const first = done.findLastIndex(([decision]) => decision.action !== "move");
    const [drawn] = done[first] || [{}];
    const isOnIt = ([decision]) => decision.place === view.place && decision.id === id;
    const boxesOf = (all) => JSON.stringify(all.map(({ bbox }) => bbox));
    if (drawn.action !== "draw" || !done.slice(first).every(isOnIt)) return false;
    if (boxesOf(found(drawn.before, id).instances) !== boxesOf(instances.toSpliced(box, 1))) return false;
    while (done.length > first) undo();
    return true;
  }
  // Give each change of a decision the version that the reviewer saw.
  function stamp({ record, changes }) {
    for (const change of changes) {
      change.version = (!change.fresh && versions.get(nameOf(record, change.id))) || "";
    }
  }
  // What can be sent at once. A second decision on a phrase waits for the first one's answer, and with it for the
  // phrase's version; so does what comes after a new phrase, whose id the answer has.
  function nextBatch() {
    const busy = new Set();
    return waiting.slice(0, GRID).filter(({ record, ids, changes }) => {
      const names = ids.map((id) => nameOf(record, id));
      const isFree = !busy.has(record) && !names.some((name) => busy.has(name));
      names.forEach((name) => busy.add(name));
      if (changes.some(({ fresh }) => fresh)) busy.add(record);
      return isFree;
    });
  }
  async function flush() {
    tellSaved();
    if (sending || isHeld) return;
    sending = true;
    while (waiting.length) await sendSome();
    sending = false;
    tellSaved();
    await countAnew();
  }
  async function sendSome() {
    const batch = nextBatch();
    batch.forEach(stamp);
    try {
      settle(batch, (await answer("decide", { decisions: batch })).answers);
    } catch (error) {
      const kept = "What you decide is kept in this page and sent";
      lost = error.said ? `Not saved: ${error.message}. ${kept} again.`
        : `The server doesn't answer. ${kept} when it does.`;
      tellSaved();
      await pause(1500);
    }
  }
  async function countAnew() { // the server knows how many items a decision was on
    const now = asked;
    const said = await itemsOf({ ...now, mode: "single", place: 0, most: 0 }).catch(() => null);
    if (said && asked === now) count(said);
    tellSaved();
  }
  function settle(batch, answers) {
    lost = "";
    waiting = waiting.filter((decision) => !batch.includes(decision));
    const items = answers.map(({ error }, n) => (error ? refuse(batch[n], error) : []));
    answers.forEach(({ view }, n) => {
      try {
        taken(view, batch, answers, items[n]);
      } catch (error) { // of the page's own: what was sent is saved all the same
        reportError(error);
      }
    });
  }
  // Drop a decision that was refused, and later ones on the same expressions, which were made on what isn't so. Returns
  // the items of all of them.
  function refuse(decision, error) {
    const isOff = (other) => other.record === decision.record && other.ids.some((id) => decision.ids.includes(id));
    const off = [decision, ...waiting.filter(isOff)];
    const items = off.flatMap((other) => other.items || []);
    const isGone = ({ uid }) => off.some((other) => other.uid === uid);
    const kept = (list) => list.map((some) => some.filter((one) => !isGone(one))).filter((some) => some.length);
    waiting = waiting.filter((other) => !isOff(other));
    done = kept(done);
    undone = kept(undone);
    refused.push({ error, items });
    tell(whyRefused());
    return items;
  }
  // What the server says stands: a record's view comes with the last decision on it.
  function taken(view, batch, answers, items) {
    const isOfIt = (decision, n) => view && decision.record === view.key && !answers[n].error;
    const old = view && views.get(view.place);
    const isShownNow = view && learn(view, batch.filter(isOfIt).flatMap(({ ids }) => ids));
    page.taken(items, isShownNow ? view : null, old);
  }
  const sent = async () => { while (sending || waiting.length) await pause(5); };
  const mayBeLost = () => waiting.length > 0 || page.unsent() > 0;
  // The address of a file with all decisions that the server doesn't have, for a download.
  function fileOf() {
    waiting.forEach(stamp);
    const lines = waiting.map(({ items, ids, ...decision }) =>
      `${JSON.stringify({ ...decision, ...(who && { who }) })}\n`);
    return URL.createObjectURL(new Blob(lines));
  }
  const begin = () => { since = performance.now(); };
  const elapsed = () => (performance.now() - since) / 1000;
  return {
    page, found, boxes, given, othersOf, isDecided, isRejected, isShown, placeOf, pause, tell, hint, announce, counted,
    leftText, whyRefused, tellSaved, forget, ask, commit, together, undo, undraw, sent, fileOf, mayBeLost, begin, elapsed,
    left: () => left,
    shown: () => shown,
    toMend: () => toMend,
    viewOf: (item) => views.get(item.record),
    refused: () => refused.flatMap(({ items }) => items),
  };
})();
