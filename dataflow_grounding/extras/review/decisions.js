// What a reviewer decides: shown at once, sent in order, one decision after the other. A version goes along with each
// change, so that a decision on what another changed meanwhile is refused. reviewData, where --static wrote it, stands
// for the server: decisions are then collected, for a file. How much is left and saved, and what wasn't taken, and why,
// stands above the records.
"use strict";

const reviewDecisions = (() => {
  const GRID = 60; // boxes on a page of the grid, decisions sent at once
  const MOST_NAMED = 5; // refusals
  const byId = (id) => document.getElementById(id);
  const pause = (milliseconds) => new Promise((ready) => setTimeout(ready, milliseconds));
  const found = (view, id) => view.expressions.find((e) => e.id === id);
  // An expression as it is given back.
  const boxes = (e) => e.instances.map(({ bbox, verified }, from) => ({ from, bbox, verified }));
  const given = (e, more) => ({ status: e.status, verified: e.verified, instances: boxes(e), ...more });
  // Where the box of an item, or what was put in its place, is among those of its phrase by now; null where it is gone.
  function placeOf(view, item) {
    const { instances } = found(view, item.id) || { instances: [] };
    const place = instances.findIndex(({ box }) => box === item.box), other = instances[item.box];
    return place >= 0 ? place : other && other.box === undefined ? item.box : null;
  }
  // Whether a reviewer judged an item, deleted it, or put something else in its place.
  function isDecided(view, item) {
    const e = found(view, item.id), judged = e && item.box !== null ? e.instances[placeOf(view, item)] : null;
    if (!e || item.box === null) return !e || Boolean(e.reviewed_by);
    return !judged || typeof judged.verified === "boolean";
  }

  async function answer(path, body) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(path, body && { method: "POST", headers, body: JSON.stringify(body) });
    const said = await response.json();
    if (!response.ok) throw Object.assign(new Error(said.error), { said: true });
    return said;
  }
  const asking = {
    ask: (wanted) => answer(`next?${new URLSearchParams(wanted)}`),
    send: async (decisions) => (await answer("decide", { decisions })).answers,
  };
  // The same without a server; `kept` are all decisions, `views` the records by place as they stand.
  function collecting(data, views) {
    const kept = [], viewOf = ({ record }) => views.get(record) || data.records[record];
    data.items.forEach((item, place) => { item.place = place; });
    const fits = (w) => (item) => !isDecided(viewOf(item), item) && (!w.status || item.status === w.status)
      && (!w.text || item.text.toLowerCase().includes(w.text.toLowerCase())) && (!w.head || item.head === w.head)
      && (!w.below || (item.score !== null && item.score < Number(w.below)));
    async function ask(w) {
      if (w.below && Number.isNaN(Number(w.below.trim() || NaN))) {
        throw Object.assign(new Error(`'below' should be a score from 0 to 1, not '${w.below}'`), { said: true });
      }
      const fitting = data.items.filter(fits(w)), isGrid = w.mode === "grid";
      const open = isGrid ? fitting.filter(({ box }) => box !== null) : fitting;
      if (isGrid) open.sort((a, b) => (a.head < b.head ? -1 : a.head > b.head ? 1 : 0));
      const items = isGrid ? open.slice(0, GRID) : open.filter(({ place }) => place >= w.place).slice(0, w.most);
      const next = items.length ? items[items.length - 1].place + 1 : data.items.length;
      return { items, records: items.map(viewOf), place: isGrid ? 0 : next, left: fitting.length };
    }
    async function send(some) {
      kept.push(...some);
      return some.map(({ uid }) => ({ uid }));
    }
    return { ask, send, kept };
  }

  // What changes make of a record, as far as the page can tell before the server has.
  function applied(view, changes) {
    const next = structuredClone(view), rows = next.expressions;
    for (const { id, after } of changes) {
      const place = rows.findIndex((e) => e.id === id), isOwn = place < 0;
      const old = isOwn ? { id, isOwn, reasons: [], check: "", span: null, instances: [], meaning: "" } : rows[place];
      rows.splice(isOwn ? rows.length : place, isOwn ? 0 : 1, ...(after ? [changed(view, old, after)] : []));
    }
    let colors = 0;
    const colorOf = (e) => (e.instances.length ? colors++ % recordPage.COLORS : null);
    rows.forEach((e, n) => Object.assign(e, { index: n, color: colorOf(e) }));
    return next;
  }
  function changed(view, old, after) {
    const was = ({ from, of }) =>
      (of ? { ...found(view, of.id).instances[of.box], box: undefined } : from === null ? {} : old.instances[from]);
    const instances = after.instances.map((one) =>
      ({ evidence: "person", score: null, ...was(one), bbox: one.bbox, verified: one.verified }));
    const units = (n) => [...view.caption].slice(0, n).join("").length; // of UTF-16, for so many code points
    const verdicts = instances.length ? instances.map((i) => i.verified) : [after.verified];
    const verified = verdicts.includes(false) ? false : verdicts.every((verdict) => verdict === true) || null;
    return { ...old, ...after, instances, verified, span: after.char_span ? after.char_span.map(units) : old.span,
      reviewed_by: verified === null ? null : "you" };
  }

  // The page that shows them says why() a thing is there; taken(items, view, old) tells it which items were refused and
  // what a decision has made of its record, null where more wait.
  const page = {};
  const views = new Map(), versions = new Map(); // by record's place; by its key and an expression's id
  let waiting = []; // decisions to send; `ids`: of the expressions that each is on
  let done = [], undone = []; // to undo and to redo, those together that are taken back in one
  const local = window.reviewData, store = local ? collecting(local, views) : asking;
  let sending = false, asked = null, left = 0, since = performance.now(), who = local && local.who;
  let refused = []; // since the last action, each with its items
  let lost = "", wasLost = ""; // why nothing is saved

  const tell = (text) => byId("refused").replaceChildren(recordPage.pageText(text));
  function whyRefused() {
    const all = [...new Set(refused.map(({ error }) => error))], more = all.length - MOST_NAMED;
    const told = `${all.slice(0, MOST_NAMED).join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
    return all.length ? `Not taken: ${told}. Look again: this is how it stands now.` : "";
  }
  function tellSaved() {
    byId("left").textContent = `${left.toLocaleString("en")} left`;
    byId("saved").textContent = waiting.length ? `${waiting.length} not saved yet`
      : local ? "" : `all saved${refused.length ? ` but ${refused.length}` : ""}`;
    byId("download").hidden = !lost && !local;
    if (lost || wasLost) tell(lost || whyRefused());
    wasLost = lost;
  }
  // An action begins: what was refused before it has been read.
  function forget() {
    refused = [];
    tell(lost);
  }

  // Besides expressions `ids`, what others changed counts once it is shown: decisions made before are refused.
  function learn(view, ids = []) {
    const isShown = !waiting.some((decision) => decision.record === view.key);
    for (const { id, version } of view.expressions) {
      if (isShown || ids.includes(id)) versions.set(`${view.key} ${id}`, version);
    }
    if (isShown) views.set(view.place, view);
    return isShown;
  }
  async function ask(wanted) {
    const said = await store.ask(wanted);
    Object.values(said.records).forEach((view) => learn(view));
    [who, asked, left] = [said.who || who, wanted, said.left];
    tellSaved();
    return said;
  }
  function enqueue(action, view, ids, changes, next, more) {
    const uid = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`, now = performance.now();
    waiting.push({ uid, ids, record: view.key, action, queue: page.why(), changes, seconds: (now - since) / 1000,
      ...(local && { who, when: new Date().toISOString() }), ...more });
    if (!more.seconds) since = now;
    views.set(view.place, next);
    flush();
    return uid;
  }
  function commit(action, view, changes, more = {}) {
    const next = { ...applied(view, changes), ...("comment" in more && { comment: more.comment }) };
    const ids = changes.map(({ id }) => id), uid = enqueue(action, view, ids, changes, next, more);
    done.push([{ uid, ids, action, place: view.place, before: view, id: ids[0], items: more.items || [] }]);
    undone = [];
  }
  // What run() commits is taken back in one.
  function together(run) {
    const first = done.length;
    run();
    if (done.length > first) done.push(done.splice(first).flat());
  }
  // Take the last decisions back, or make the last ones so taken again: what they were on, by `place` and `id`.
  function undo(again = false) {
    const [from, to] = again ? [undone, done] : [done, undone], last = from.pop();
    if (!last) return null;
    to.push(last.reverse().map((one) => {
      const now = views.get(one.place), comment = one.action === "comment" && { comment: one.before.comment };
      const uid = enqueue("undo", now, one.ids, [], one.before, { undoes: one.uid, ...comment });
      return { ...one, before: now, uid };
    }));
    return last;
  }
  // Undo the drawing of a phrase's box, with how it was moved since, where nothing else came after it.
  function undraw(view, { id, instances }, box) {
    const first = done.findLastIndex(([one]) => one.action !== "move"), [drawn] = done[first] || [{}];
    const isOnIt = ([one]) => one.place === view.place && one.id === id;
    const boxesOf = (all) => JSON.stringify(all.map(({ bbox }) => bbox));
    if (drawn.action !== "draw" || !done.slice(first).every(isOnIt)
      || boxesOf(found(drawn.before, id).instances) !== boxesOf(instances.toSpliced(box, 1))) return false;
    while (done.length > first) undo();
    return true;
  }
  function stamp({ record, changes }) {
    for (const one of changes) one.version = (!one.fresh && versions.get(`${record} ${one.id}`)) || "";
  }
  async function flush() {
    tellSaved();
    if (sending) return;
    sending = true;
    while (waiting.length) {
      // A second change of one record waits for the first one's answer, and with it for its version.
      const some = waiting.slice(0, GRID), records = some.map((decision) => decision.record);
      const batch = some.filter((decision, n) => records.indexOf(decision.record) === n);
      batch.forEach(stamp);
      const answers = await store.send(batch).catch((error) => {
        const kept = "What you decide is kept in this page and sent";
        lost = error.said ? `Not saved: ${error.message}. ${kept} again.`
          : `The server doesn't answer. ${kept} when it does.`;
      });
      if (answers) settle(batch, answers);
      else {
        tellSaved();
        await pause(1500);
      }
    }
    sending = false;
    tellSaved();
    const now = asked, said = await store.ask({ ...now, mode: "single", place: 0, most: 0 }).catch(() => null);
    if (said && asked === now) left = said.left; // of how many things a decision was, the queue knows
    tellSaved();
  }
  function settle(batch, answers) {
    lost = "";
    waiting = waiting.filter((decision) => !batch.includes(decision));
    answers.forEach((said, n) => {
      try {
        taken(said, batch[n]);
      } catch (error) { // of the page's own: what was sent is saved all the same
        reportError(error);
      }
    });
  }
  // What the server says stands. Where it refused, later decisions on the same were made on what isn't so.
  function taken({ error, view }, decision) {
    const isOff = (one) => one.record === decision.record && one.ids.some((id) => decision.ids.includes(id));
    const off = error ? [decision, ...waiting.filter(isOff)] : [], items = off.flatMap((one) => one.items || []);
    if (error) {
      const others = (some) => some.filter(({ uid }) => off.every((one) => one.uid !== uid));
      waiting = waiting.filter((one) => !isOff(one));
      [done, undone] = [done, undone].map((list) => list.map(others).filter((some) => some.length));
      refused.push({ error, items });
      tell(whyRefused());
    }
    const old = view && views.get(view.place), isShown = view && learn(view, error ? [] : decision.ids);
    page.taken(items, isShown ? view : null, old);
  }
  const sent = async () => { while (sending || waiting.length) await pause(5); };
  const mayBeLost = () => waiting.length > 0 || Boolean(local);
  function fileOf() {
    if (!local) waiting.forEach(stamp);
    const lines = (local ? store.kept : waiting).map(({ items, ids, ...decision }) =>
      `${JSON.stringify({ ...decision, ...(who && { who }) })}\n`);
    return URL.createObjectURL(new Blob(lines));
  }
  const begin = () => { since = performance.now(); };
  const elapsed = () => (performance.now() - since) / 1000;
  return { page, found, boxes, given, isDecided, placeOf, pause, tell, whyRefused, forget, ask, commit, together, undo,
    undraw, sent, fileOf, mayBeLost, begin, elapsed, isLocal: Boolean(local), left: () => left,
    viewOf: (item) => views.get(item.record), refused: () => refused.flatMap(({ items }) => items) };
})();
