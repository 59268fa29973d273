// The page of a review: the grid, where the wrong boxes of one thing are named, and the single record, where boxes and
// phrases are mended.
"use strict";

(() => {
  const { node } = recordPage;
  const { found, boxes, given, isDecided, placeOf, viewOf, commit, sent, tell } = reviewDecisions;
  const byId = (id) => document.getElementById(id), main = byId("main");
  const AHEAD = 20; // things asked for at once
  const failed = (error) => error && tell(`This page failed: ${error.message}. What is saved stays; load it anew.`);
  window.addEventListener("error", (event) => failed(event.error));
  window.addEventListener("unhandledrejection", (event) => failed(event.reason));
  let page = { items: [], place: 0 }, at = 0, picked = { id: null, box: null }, stage = null;
  let typed = "", typing = 0, drawn = { rows: [] };
  const viewNow = () => viewOf(page.items[at]), accept = () => reviewGrid.accept(nextPage);
  Object.assign(reviewDecisions.page, { why: () => page.items[at]?.why || "", taken });

  // What is wanted stands in the address, so that a reload or a bookmark goes on there.
  const fields = byId("wanted").elements, isGrid = () => fields.mode.value === "grid";
  const wanted = () => Object.fromEntries(new FormData(byId("wanted")));
  const readAddress = () => new URLSearchParams(location.hash.slice(1)).forEach((value, name) => {
    if (fields[name]) fields[name].value = value;
  });
  const current = () => found(viewNow(), picked.id);

  async function load(place = 0, goal = {}) {
    try {
      page = await reviewDecisions.ask({ ...wanted(), place, most: AHEAD });
    } catch (error) {
      [at, main.inert] = [Math.max(0, Math.min(at, page.items.length - 1)), false]; // what was there stays
      return tell(error.said ? error.message : "The server doesn't answer: is `review` still running?");
    }
    at = Math.max(0, page.items.findIndex(({ record, id, box }) =>
      record === goal.record && id === goal.id && (goal.box === undefined || box === goal.box)));
    return draw();
  }
  function draw(marked) {
    const again = page.items.length > 0 && page.items[at].again;
    typed = "";
    main.inert = false;
    reviewDecisions.begin();
    if (!page.items.length) drawEnd();
    else if (isGrid()) {
      reviewGrid.draw(page, `${again ? "not taken; " : ""}mark what is wrong, then Enter`, marked,
        [button("Accept the rest", "Enter", accept), again && button("Leave them", "]", leave), undoer()]);
    } else pick(page.items[at].id, placeOf(viewNow(), page.items[at]));
    if (again) tell(again);
  }
  function drawEnd() { // of the queue: single records may have been passed over
    const isLeft = reviewDecisions.left() > 0;
    const back = isLeft && !isGrid() && button("What was passed over", "[", () => load());
    const why = isLeft ? "that has a box: the way single shows the rest" : "to decide here";
    main.replaceChildren(node("p", { class: "note" }, back ? "That was the last one." : `Nothing is left ${why}.`),
      node("p", { class: "tools" }, back, undoer()));
  }
  const isCommenting = () => document.activeElement.localName === "textarea";
  const leaveComment = () => { if (isCommenting()) document.activeElement.blur(); }; // what was typed is then saved
  // An action begins: what was typed is saved, what was told has been read. A page of the grid under way allows none.
  function act() {
    leaveComment();
    if (!isGrid() || !reviewGrid.isClosed()) reviewDecisions.forget();
  }
  function taken(items, view, old) {
    if (!isGrid()) bringBack(items);
    if (!view || isGrid() || !stage || !page.items[at] || viewNow() !== view) return;
    if (picked.id && !found(view, picked.id)) { // one that was added has another id now
      const { text } = found(old, picked.id) || {};
      const now = view.expressions.find((e) => !found(old, e.id) && e.text === text);
      picked.id = now ? now.id : null;
    }
    if (!stage.isBusy() && !isCommenting() && getSelection().isCollapsed) drawSingle();
  }
  // Items of which nothing was taken come next, unless they are what is looked at.
  function bringBack(items) {
    const now = page.items[at] || {}, others = items.filter((item) => item.record !== now.record || item.id !== now.id);
    page.items.splice(at + 1, 0, ...others.map((item) => ({ ...item, again: reviewDecisions.whyRefused() })));
  }
  // After a page of the grid: what was refused of it, with its marks, else the next page.
  async function nextPage(marked) {
    const refused = reviewDecisions.refused(), isThere = (item) => placeOf(viewOf(item), item) !== null;
    const items = page.items.filter((item) => refused.includes(item) && isThere(item));
    if (!items.length) return load(page.place);
    items.forEach((item) => { item.again = reviewDecisions.whyRefused(); });
    [page, at] = [{ ...page, items, isSent: false }, 0];
    return draw(marked);
  }
  const leave = () => page.items[0].again && load();
  function undo(again) {
    const last = reviewDecisions.undo(again);
    if (!last) return null;
    const { place, id, items: [item] } = last.find((one) => one.id) || last[0];
    const isHere = ({ record }) => record === place, goal = item || { record: place, id };
    if (isGrid() || !page.items.some(isHere)) return sent().then(() => load(0, goal));
    at = [page.items.indexOf(item), page.items.findIndex((one) => isHere(one) && one.id === id),
      page.items.findIndex(isHere)].find((n) => n >= 0);
    return id ? pick(id, item && item.id === id ? placeOf(viewNow(), item) : null) : drawSingle();
  }
  const button = (name, key, run) => {
    const made = node("button", { type: "button", "aria-keyshortcuts": key }, name, " ", node("kbd", null, key));
    made.addEventListener("mousedown", (event) => event.preventDefault()); // the selection in the caption stays
    made.addEventListener("click", () => { act(); run(); });
    return made;
  };
  const undoer = () => button("Undo", "z", () => undo());

  // A single record.
  function pick(id, box = null) {
    const e = found(viewNow(), id);
    picked = { id: e ? id : null, box: e && e.instances.length === 1 ? 0 : box };
    drawSingle();
  }
  function pickNext(e) {
    const again = picked.id === e.id && e.instances.length;
    pick(e.id, again ? ((picked.box === null ? -1 : picked.box) + 1) % e.instances.length : null);
  }
  const isPicked = (e, instance) => e.id === picked.id && (picked.box === null || e.instances[picked.box] === instance);
  // Rows of the list that changed are made anew; the rest of the record, too, where it has other phrases.
  function drawSingle() {
    if (!boxNow()) picked.box = null; // it was deleted, by whomever
    const view = viewNow(), rows = view.expressions.map((e) => JSON.stringify(e));
    const phrases = view.expressions.map((e) => [e.id, e.text, e.span, e.color]);
    const outline = JSON.stringify([view.place, view.comment, phrases]);
    if (drawn.outline !== outline || !drawn.article.isConnected) drawn = { outline, rows, ...drawRecord(view) };
    view.expressions.forEach((e, n) => {
      if (rows[n] !== drawn.rows[n]) drawn.list.children[n].replaceWith(rowOf(e, view));
      drawn.list.children[n].classList.toggle("picked", e.id === picked.id);
    });
    drawn.rows = rows;
    stage = reviewStage(view, boxNow(), isPicked, { draw: drawBox, move: resize, click: clicked }, stage);
    drawn.article.querySelector("figure").replaceChildren(stage.board, view.missing);
  }
  function rowOf(e, view) {
    const row = recordPage.rowOf(e, view), no = e.instances.filter((i) => i.verified === false).length;
    row.addEventListener("click", () => pickNext(e));
    if (e.reviewed_by) row.append(node("span", { class: `verdict${e.verified ? "" : " no"}` },
      e.verified ? "right" : "wrong", no ? `: ${no} of ${e.instances.length} boxes` : "", ", says ", e.reviewed_by));
    return row;
  }
  function drawRecord(view) {
    const item = page.items[at];
    const comment = node("textarea", { rows: 2, "aria-label": "Comment", placeholder: "Comment (c)" });
    comment.value = view.comment;
    comment.addEventListener("change", () => commit("comment", viewOf(item), [], { comment: comment.value }));
    const list = node("ul", { class: "expressions" }, view.expressions.map((e) => rowOf(e, view)));
    const tools = Object.entries(ACTIONS).map(([key, [name, run]]) => name && button(name, key, run));
    const article = recordPage.lightsUp(node("article", { class: "record single" }, node("figure"),
      node("div", { class: "text" }, node("h2", { dir: "auto" }, view.id), node("p", { class: "facts" }, view.path),
        view.notes.map((text) => node("p", { class: "missing" }, text)), recordPage.captionOf(view),
        view.expressions.length ? list : recordPage.listOf(view), comment, node("p", { class: "tools" }, tools))));
    main.replaceChildren(article);
    return { article, list };
  }
  const boxNow = () => current()?.instances[picked.box]?.bbox || null;
  function clicked(point) {
    const hit = recordPage.hitsOf(recordPage.boxesOf(viewNow()), ...point);
    const last = hit.findIndex(({ e, instance }) => picked.box !== null && isPicked(e, instance));
    const next = hit[(last + 1) % hit.length];
    if (next) pick(next.e.id, next.e.instances.indexOf(next.instance));
    else pick(picked.id);
  }

  // What keys and buttons do to what is picked in a single record.
  function change(action, e, more, items) {
    act();
    commit(action, viewNow(), [{ id: e.id, after: given(e, more) }], items && { items });
    drawSingle();
  }
  // Of a phrase the picked box, else all; of a record what nobody judged yet.
  function judge(verified) {
    const view = viewNow(), isOpen = (one) => typeof one.verified !== "boolean";
    const ones = current() ? [current()] : view.expressions.filter((e) => !e.reviewed_by || e.instances.some(isOpen));
    const isMeant = (i, n) => (current() ? picked.box === null || picked.box === n : isOpen(i));
    const told = (e) => boxes(e).map((i, n) => (isMeant(i, n) ? { ...i, verified } : i));
    const changes = ones.map((e) => ({ id: e.id, after: given(e, { verified, instances: told(e) }) }));
    commit(verified ? "accept" : "reject", view, changes, { items: [page.items[at]] });
    go(1);
  }
  function resize(bbox) {
    const instances = boxes(current());
    if (String(bbox) === String(instances[picked.box].bbox)) return drawSingle(); // what moves nothing decides nothing
    Object.assign(instances[picked.box], { bbox, verified: true });
    change("move", current(), { instances });
  }
  function drawBox(bbox) {
    const e = current();
    if (!e) return tell("Pick a phrase first: by its number, or by a click in the list.");
    if (bbox[2] - bbox[0] < 1 || bbox[3] - bbox[1] < 1) return drawSingle();
    const exact = bbox.map((n) => Math.round(n * 100) / 100);
    picked.box = e.instances.length;
    change("draw", e, { instances: [...boxes(e), { from: null, bbox: exact, verified: true }], status: "grounded" });
  }
  function arrow(event) {
    const far = event.shiftKey ? 10 : 1;
    const by = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
    if (boxNow()) stage.nudge(event.altKey && [false, false, true, true], by);
  }
  const nothingThere = () => current() && change("absent", current(), { instances: [], status: "none", verified: true },
    [page.items[at]]);
  function remove() {
    const e = current(), items = [page.items[at]];
    if (e && picked.box === null) {
      commit("delete", viewNow(), [{ id: e.id, after: null }], { items });
      pick(null);
    } else if (e) {
      if (reviewDecisions.undraw(viewNow(), e, picked.box)) return pick(e.id);
      const instances = boxes(e).filter((_, n) => n !== picked.box);
      const bare = !instances.length && { status: "none", verified: null }; // what was judged was the box
      picked.box = null;
      change("delete", e, { instances, ...bare }, items);
    }
    return null;
  }
  function phrased(way) {
    const view = viewNow(), changes = reviewPhrases(way, view, current());
    tell(typeof changes === "string" ? changes : "");
    if (typeof changes === "string") return;
    commit(way, view, changes);
    getSelection().removeAllRanges();
    pick(changes[0].id);
  }
  function go(by) {
    const isDone = (item) => item && !item.again && isDecided(viewOf(item), item);
    do at += by; while (isDone(page.items[at]));
    main.inert = !page.items[at]; // what is still shown is no longer what keys are for
    return page.items[at] ? draw() : sent().then(() => (page.items[at] ? draw() : load(by > 0 ? page.place : 0)));
  }
  function escape() {
    picked = { id: picked.box === null ? null : picked.id, box: null };
    drawSingle();
  }
  function pointOut() {
    stage.fourPoints();
    tell("Click the outermost points: left, top, right, bottom, in any order.");
  }

  const ACTIONS = { // by key: what its button says, where it has one
    a: ["Accept", () => judge(true)], x: ["Reject", () => judge(false)], m: ["Not in the picture", nothingThere],
    f: ["Four points", pointOut], e: ["Phrase = selection", () => phrased("phrase")],
    n: ["New phrase", () => phrased("add")], s: ["Split", () => phrased("split")],
    j: ["Join with next", () => phrased("join")], Delete: ["Delete", remove], z: ["Undo", () => undo()],
    y: ["Redo", () => undo(true)], "]": ["Next", () => go(1)], "[": ["Previous", () => go(-1)],
    "+": ["Zoom in", () => stage.zoom(1.25)], "-": ["Zoom out", () => stage.zoom(0.8)], 0: [null, () => stage.whole()],
    Backspace: [null, remove], c: [null, () => document.querySelector("textarea").focus()], Escape: [null, escape],
    ArrowLeft: [null, arrow], ArrowRight: [null, arrow], ArrowUp: [null, arrow], ArrowDown: [null, arrow],
    " ": [null, () => (stage.hand = true)],
  };
  const GRID_ACTIONS = { Enter: [null, accept], "]": [null, leave], z: ACTIONS.z, y: ACTIONS.y };
  const END_ACTIONS = { "[": [null, () => (page.items.length ? go(-1) : load())], z: ACTIONS.z, y: ACTIONS.y };
  function numbered(digit) {
    const now = performance.now(), most = isGrid() ? 99 : viewNow().expressions.length;
    typed = now - typing < 800 && Number(typed + digit) <= most ? typed + digit : digit;
    typing = now;
    if (isGrid() && typed.length === 2) {
      reviewGrid.typed(Number(typed));
      typed = "";
    } else if (!isGrid() && viewNow().expressions[typed - 1]) pickNext(viewNow().expressions[typed - 1]);
  }
  document.addEventListener("keydown", (event) => {
    const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const field = event.target.closest("input, select, textarea, dialog");
    if (field && event.key === "Escape") event.target.blur();
    if (field || ((event.ctrlKey || event.metaKey) && !undoes)) return;
    if (event.key === "?") return byId("keys").showModal();
    const key = undoes ? (event.shiftKey ? "y" : "z") : event.key === "Z" ? "y" : event.key;
    if (key === "Enter" && event.repeat) return event.preventDefault(); // held down, it means one page
    const whose = { Enter: "button, li", " ": "button" }[key], press = whose && event.target.closest(whose);
    if (press) return press.localName === "li" && press.click(); // what has the focus does what it does
    const [, run] = (page.items[at] ? (isGrid() ? GRID_ACTIONS : ACTIONS) : END_ACTIONS)[key] || [];
    const isDigit = page.items[at] && /^[0-9]$/.test(key);
    if (isDigit && (isGrid() || key !== "0" || (typed && performance.now() - typing < 800))) numbered(key);
    else if (run) {
      act();
      run(event);
    } else return;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => { if (stage && event.key === " ") stage.hand = false; });

  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("download").addEventListener("click", () => {
    act();
    node("a", { href: reviewDecisions.fileOf(), download: "decisions.jsonl" }).click();
  });
  byId("wanted").addEventListener("submit", (event) => event.preventDefault());
  byId("wanted").addEventListener("change", () => {
    act();
    history.replaceState(null, "", `#${new URLSearchParams(wanted())}`);
    sent().then(() => load());
  });
  window.addEventListener("beforeunload", (event) => {
    leaveComment();
    if (reviewDecisions.mayBeLost()) event.preventDefault();
  });
  window.addEventListener("hashchange", () => { act(); readAddress(); load(); });
  fields.order.parentElement.hidden = reviewDecisions.isLocal; // it is that of the folder
  readAddress();
  load();
})();
