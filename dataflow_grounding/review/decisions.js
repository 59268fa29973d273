// What a reviewer decides: shown at once, sent in order, one decision after the other. A version goes along with each
// change, so that a decision on what another changed meanwhile is refused. reviewData, where --static wrote it, stands
// for the server: decisions are then collected, for a file.
"use strict";

const reviewDecisions = (() => {
  const GRID = 60; // boxes on a page of the grid, decisions sent at once
  const pause = (milliseconds) => new Promise((ready) => setTimeout(ready, milliseconds));
  const found = (view, id) => view.expressions.find((e) => e.id === id);
  // An expression as it is given back.
  const boxes = (e) => e.instances.map(({ bbox, verified }, from) => ({ from, bbox, verified }));
  const given = (e, more) => ({ status: e.status, verified: e.verified, instances: boxes(e), ...more });

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
  // The same without a server; `kept` are all decisions.
  function collecting(data) {
    const decided = new Set(), kept = [], name = ({ record, id, box }) => `${record} ${id} ${box}`;
    const fits = (w) => (item) => !decided.has(name(item)) && (!w.status || item.status === w.status)
      && (!w.text || item.text.toLowerCase().includes(w.text.toLowerCase())) && (!w.head || item.head === w.head)
      && (!w.below || (item.score !== null && item.score < Number(w.below)))
      && (w.mode !== "grid" || item.box !== null);
    async function ask(w) {
      const all = data.items.filter(fits(w));
      if (w.mode === "grid") all.sort((a, b) => (a.head < b.head ? -1 : a.head > b.head ? 1 : 0));
      const items = all.slice(0, w.mode === "grid" ? GRID : w.most);
      const records = Object.fromEntries(items.map((item) => [item.record, data.records[item.record]]));
      return { items, records, place: 0, left: all.length };
    }
    async function send(some) {
      kept.push(...some);
      some.forEach((decision) => (decision.items || []).forEach((item) => decided.add(name(item))));
      return some.map(({ uid }) => ({ uid }));
    }
    return { ask, send, kept };
  }

  // What changes make of a record, as far as the page can tell before the server has.
  function applied(view, changes) {
    const next = structuredClone(view), rows = next.expressions;
    for (const { id, after } of changes) {
      const place = rows.findIndex((e) => e.id === id), isNew = place < 0;
      const old = isNew ? { id, reasons: [], check: "", span: null, instances: [], meaning: "" } : rows[place];
      rows.splice(isNew ? rows.length : place, isNew ? 0 : 1, ...(after ? [changed(view, old, after)] : []));
    }
    let colors = 0;
    rows.forEach((e, n) => Object.assign(e, { index: n, color: e.instances.length ? colors++ % 7 : null }));
    return next;
  }
  function changed(view, old, after) {
    const instances = after.instances.map(({ from, bbox, verified }) =>
      ({ evidence: "person", score: null, ...(from === null ? {} : old.instances[from]), bbox, verified }));
    const units = (n) => [...view.caption].slice(0, n).join("").length; // of UTF-16, for so many code points
    const verdicts = instances.length ? instances.map((i) => i.verified) : [after.verified];
    const verified = verdicts.includes(false) ? false : verdicts.every((verdict) => verdict === true) || null;
    return { ...old, ...after, instances, verified, span: after.char_span ? after.char_span.map(units) : old.span,
      reviewed_by: instances.length && verified === null ? null : "you" };
  }

  // The decisions of a page, which says why() a thing is shown; saving(lost) and taken(error, decision, view, old) tell
  // it that more or fewer wait, lost while nobody answers, and what one has made of its record, null where more wait.
  function of(page) {
    const views = new Map(), versions = new Map(); // by record's place; by its key and an expression's id
    const waiting = [], done = [], undone = []; // decisions to send, to undo and to redo
    const local = window.reviewData, store = local ? collecting(local) : asking;
    let sending = false, since = performance.now();

    function learn(view) {
      view.expressions.forEach((e) => versions.set(`${view.key} ${e.id}`, e.version));
      if (waiting.some((decision) => decision.record === view.key)) return false;
      views.set(view.place, view);
      return true;
    }
    async function ask(wanted) {
      const said = await store.ask(wanted);
      Object.values(said.records).forEach(learn);
      return said;
    }
    function enqueue(action, view, changes, next, more = {}) {
      const uid = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`, now = performance.now();
      waiting.push({ uid, record: view.key, action, queue: page.why(), changes, seconds: (now - since) / 1000,
        ...(local && { who: local.who, when: new Date().toISOString() }), ...more });
      if (!more.seconds) since = now;
      views.set(view.place, next);
      flush();
      return uid;
    }
    function commit(action, view, changes, more) {
      const uid = enqueue(action, view, changes, applied(view, changes), more);
      done.push({ uid, place: view.place, before: view, id: changes.length ? changes[0].id : null });
      undone.length = 0;
    }
    // Take the last decision back, or make the last one so taken again: what it was on, by `place` and `id`.
    function undo(again = false) {
      const [from, to] = again ? [undone, done] : [done, undone], last = from.pop();
      if (!last) return null;
      const now = views.get(last.place);
      to.push({ ...last, before: now, uid: enqueue("undo", now, [], last.before, { undoes: last.uid }) });
      return last;
    }
    async function flush() {
      page.saving(false);
      if (sending) return;
      sending = true;
      while (waiting.length) {
        // A second change of one record waits for the first one's answer, and with it for its version.
        const some = waiting.slice(0, GRID), records = some.map((decision) => decision.record);
        const batch = some.filter((decision, n) => records.indexOf(decision.record) === n);
        for (const { record, changes } of batch) {
          for (const one of changes) one.version = (!one.fresh && versions.get(`${record} ${one.id}`)) || "";
        }
        try {
          const answers = await store.send(batch);
          batch.forEach((decision) => waiting.splice(waiting.indexOf(decision), 1));
          answers.forEach((said, n) => taken(said, batch[n]));
        } catch (error) {
          page.saving(true);
          await pause(1500);
        }
      }
      sending = false;
      page.saving(false);
    }
    // What the server says stands. Where it refused, later decisions on that record were made on what isn't so.
    function taken({ error, view }, decision) {
      if (error) {
        for (const d of waiting.filter((d) => d.record === decision.record)) waiting.splice(waiting.indexOf(d), 1);
        done.length = 0;
      }
      const old = view && views.get(view.place);
      page.taken(error, decision, view && learn(view) ? view : null, old);
    }
    const sent = async () => { while (sending || waiting.length) await pause(5); };
    const mayBeLost = () => waiting.length > 0 || Boolean(local);
    const fileOf = () => URL.createObjectURL(new Blob((local ? store.kept : waiting)
      .map(({ items, ...decision }) => `${JSON.stringify(decision)}\n`)));
    const begin = () => { since = performance.now(); };
    const elapsed = () => (performance.now() - since) / 1000;
    return { ask, commit, undo, sent, fileOf, mayBeLost, begin, elapsed, waiting, isLocal: Boolean(local),
      viewOf: (item) => views.get(item.record) };
  }
  return { of, found, boxes, given };
})();
