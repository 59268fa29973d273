// The page of a review: the grid, where the wrong boxes of one thing are named, and the single record, where boxes and
// phrases are mended.
"use strict";

(() => {
  const { node, pageText } = recordPage, { found, boxes, given } = reviewDecisions;
  const byId = (id) => document.getElementById(id), main = byId("main");
  const AHEAD = 20, FIRST_CELL = 11; // things asked for at once; cells count from 11: two digits each
  const KEYS = {
    Enter: "grid: accept all that aren't marked, and go on",
    "11 … 70, click": "grid: mark a box as wrong",
    "1 … 99, click": "single: pick a phrase; again: its next box",
    "a / x": "accept / reject what is picked, go on", m: "not in the picture",
    drag: "draw a box; move or resize the picked one", f: "draw by four extreme points",
    arrows: "move by 1 px, with Shift by 10; with Alt: resize",
    Delete: "delete the picked box, or the phrase",
    "e / n": "make the selection in the caption the phrase / a new phrase",
    "s / j": "split the phrase at the selection / join it with the next one",
    c: "comment", "z / y": "undo / redo", "] / [": "next / previous, undecided",
    "wheel, + − 0": "zoom; drag with Space or two fingers: pan",
    Escape: "pick the phrase without a box; then nothing: a and x mean all",
    "?": "these keys",
  };
  let page = { items: [], place: 0, left: 0 }, at = 0, picked = { id: null, box: null }, stage = null;
  let wrong = new Set(), typed = "", typing = 0, drawn = { rows: [] };
  const decisions = reviewDecisions.of({ why: () => (page.items[at] || { why: "" }).why, saving, taken });
  const { viewOf, commit, sent } = decisions, viewNow = () => viewOf(page.items[at]);

  // What is wanted stands in the address, so that a reload or a bookmark goes on there.
  const fields = byId("wanted").elements, isGrid = () => fields.mode.value === "grid";
  const wanted = () => Object.fromEntries(new FormData(byId("wanted")));
  const readAddress = () => new URLSearchParams(location.hash.slice(1)).forEach((value, name) => {
    if (fields[name]) fields[name].value = value;
  });
  const current = () => found(viewNow(), picked.id);
  const tell = (text) => byId("refused").replaceChildren(pageText(text));

  async function load(place = 0) {
    try {
      page = await decisions.ask({ ...wanted(), place, most: AHEAD });
    } catch (error) {
      return tell(error.said ? error.message : "The server doesn't answer: is `review` still running?");
    }
    at = 0;
    tell("");
    draw();
  }
  function draw() {
    [typed, wrong] = ["", new Set()];
    decisions.begin();
    if (!page.items.length) main.replaceChildren(node("p", { class: "note" }, "Nothing is left to decide here."));
    else if (isGrid()) drawGrid();
    else pick(page.items[at].id, page.items[at].box);
    saving();
  }
  function saving(isLost) {
    const left = decisions.waiting.length;
    byId("left").textContent = `${page.left.toLocaleString("en")} left`;
    byId("saved").textContent = left ? `${left} not saved yet` : decisions.isLocal ? "" : "all saved";
    byId("download").hidden = !isLost && !decisions.isLocal;
    if (isLost) tell("The server doesn't answer. What you decide is kept in this page and sent when it does.");
  }
  function taken(error, decision, view, old) {
    if (error) tell(`Not taken: ${error}. Look again: this is how it stands now.`);
    else page.left = Math.max(0, page.left - (decision.items || []).length);
    if (!view || isGrid() || !stage || !page.items[at] || viewNow() !== view) return;
    if (picked.id && !found(view, picked.id)) { // one that was added has another id now
      const { text } = found(old, picked.id) || {};
      const now = view.expressions.find((e) => !found(old, e.id) && e.text === text);
      picked.id = now ? now.id : null;
    }
    const isBusy = stage.isBusy() || document.activeElement.localName === "textarea" || !getSelection().isCollapsed;
    if (!isBusy) drawSingle();
  }
  function undo(again) {
    const last = decisions.undo(again), here = last ? page.items.findIndex((item) => item.record === last.place) : -1;
    if (last && (isGrid() || here < 0)) return sent().then(() => load());
    if (!last) return null;
    at = Math.max(page.items.findIndex((item) => item.record === last.place && item.id === last.id), here);
    return pick(last.id);
  }
  const button = (name, key, run) => {
    const made = node("button", { type: "button", "aria-keyshortcuts": key }, name, " ", node("kbd", null, key));
    made.addEventListener("mousedown", (event) => event.preventDefault()); // the selection in the caption stays
    made.addEventListener("click", () => run());
    return made;
  };

  // The grid.
  function drawGrid() {
    const heads = [...new Set(page.items.map((item) => item.head))];
    const cells = page.items.map((item, n) => {
      const view = viewOf(item), e = found(view, item.id);
      const cell = node("button", { type: "button", class: "cell", "aria-pressed": "false" },
        recordPage.cropOf(view, e.instances[item.box], e.color, 130),
        node("span", { class: "phrase", dir: "auto" }, node("kbd", null, String(n + FIRST_CELL)), " ", e.text));
      cell.addEventListener("click", () => mark(n));
      return cell;
    });
    main.replaceChildren(
      node("h2", { id: "head" }, heads.slice(0, 9).join(", "), heads.length > 9 && " …",
        ": mark what is wrong, then Enter"),
      node("div", { class: "cells", role: "group", "aria-labelledby": "head" }, cells),
      node("p", { class: "tools" }, button("Accept the rest", "Enter", acceptRest), button("Undo", "z", () => undo())));
  }
  function mark(n) {
    wrong[wrong.has(n) ? "delete" : "add"](n);
    document.querySelectorAll(".cell")[n].setAttribute("aria-pressed", String(wrong.has(n)));
  }
  async function acceptRest() {
    const seconds = decisions.elapsed() / page.items.length, nameOf = ({ record, id }) => `${record} ${id}`;
    const phrases = new Map(page.items.map((item) => [nameOf(item), []]));
    page.items.forEach((item, n) => phrases.get(nameOf(item)).push(n));
    for (const places of phrases.values()) {
      const items = places.map((n) => page.items[n]), view = viewOf(items[0]), e = found(view, items[0].id);
      const instances = boxes(e), change = { id: e.id, after: given(e, { instances }) };
      for (const n of places) instances[page.items[n].box].verified = !wrong.has(n);
      commit(instances.some((i) => i.verified === false) ? "reject" : "accept", view, [change],
        { items, seconds: seconds * items.length, queue: items[0].why });
    }
    await sent();
    load(page.place);
  }

  // A single record.
  function pick(id, box = null) {
    const e = found(viewNow(), id);
    picked = { id: e ? id : null, box: e && box === null && e.instances.length === 1 ? 0 : box };
    drawSingle();
  }
  function pickNext(e) {
    const again = picked.id === e.id && e.instances.length;
    pick(e.id, again ? ((picked.box === null ? -1 : picked.box) + 1) % e.instances.length : null);
  }
  const isPicked = (e, instance) => e.id === picked.id && (picked.box === null || e.instances[picked.box] === instance);
  // Rows of the list that changed are made anew; the rest of the record, too, where it has other phrases.
  function drawSingle() {
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
    const comment = node("textarea", { rows: 2, "aria-label": "Comment", placeholder: "Comment (c)" });
    comment.value = view.comment;
    comment.addEventListener("change", () => commit("comment", viewNow(), [], { comment: comment.value }));
    const list = node("ul", { class: "expressions" }, view.expressions.map((e) => rowOf(e, view)));
    const tools = Object.entries(ACTIONS).map(([key, [name, run]]) => name && button(name, key, run));
    const article = recordPage.lightsUp(node("article", { class: "record single" }, node("figure"),
      node("div", { class: "text" }, node("h2", { dir: "auto" }, view.id), node("p", { class: "facts" }, view.path),
        view.notes.map((text) => node("p", { class: "missing" }, text)), recordPage.captionOf(view),
        view.expressions.length ? list : recordPage.listOf(view), comment, node("p", { class: "tools" }, tools))));
    main.replaceChildren(article);
    return { article, list };
  }
  const boxNow = () => (picked.box === null || !current() ? null : current().instances[picked.box].bbox);
  function clicked(point) {
    const hit = recordPage.hitsOf(recordPage.boxesOf(viewNow()), ...point);
    const last = hit.findIndex(({ e, instance }) => picked.box !== null && isPicked(e, instance));
    const next = hit[(last + 1) % hit.length];
    if (next) pick(next.e.id, next.e.instances.indexOf(next.instance));
    else pick(picked.id);
  }

  // What keys and buttons do to what is picked in a single record.
  function change(action, e, more, items) {
    commit(action, viewNow(), [{ id: e.id, after: given(e, more) }], items && { items });
    drawSingle();
  }
  function judge(verified) {
    const view = viewNow(), item = page.items[at];
    const only = item.why === "sample" && item.id === picked.id ? picked.box : null;
    const ones = current() ? [current()] : view.expressions.filter((e) => !e.reviewed_by);
    const told = (e) => boxes(e).map((i, n) => (only === null || only === n ? { ...i, verified } : i));
    const changes = ones.map((e) => ({ id: e.id, after: given(e, { verified, instances: told(e) }) }));
    commit(verified ? "accept" : "reject", view, changes, { items: [item] });
    go(1);
  }
  function resize(bbox) {
    const instances = boxes(current());
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
      const instances = boxes(e).filter((_, n) => n !== picked.box);
      picked.box = null;
      change("delete", e, { instances, status: instances.length ? e.status : "none" }, items);
    }
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
    do at += by; while (page.items[at] && isDecided(page.items[at]));
    return page.items[at] ? draw() : sent().then(() => load(by > 0 ? page.place : 0));
  }
  function isDecided(item) {
    const e = found(viewOf(item), item.id), box = e && e.instances[item.box];
    return !e || Boolean(e.reviewed_by) || typeof (box || {}).verified === "boolean";
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
  const GRID_ACTIONS = { Enter: [null, acceptRest], z: ACTIONS.z, y: ACTIONS.y };
  function numbered(digit) {
    const now = performance.now(), most = isGrid() ? 99 : viewNow().expressions.length;
    typed = now - typing < 800 && Number(typed + digit) <= most ? typed + digit : digit;
    typing = now;
    if (isGrid() && typed.length === 2) {
      if (page.items[typed - FIRST_CELL]) mark(typed - FIRST_CELL);
      typed = "";
    } else if (!isGrid() && viewNow().expressions[typed - 1]) pickNext(viewNow().expressions[typed - 1]);
  }
  document.addEventListener("keydown", (event) => {
    const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const field = event.target.closest("input, select, textarea, dialog");
    if (field && event.key === "Escape") event.target.blur();
    if (field || ((event.ctrlKey || event.metaKey) && !undoes)) return;
    if (event.key === "?") return help.showModal();
    if (!page.items.length) return;
    const key = undoes ? (event.shiftKey ? "y" : "z") : event.key === "Z" ? "y" : event.key;
    const [, run] = (isGrid() ? GRID_ACTIONS : ACTIONS)[key] || [];
    if (/^[0-9]$/.test(key) && (isGrid() || key !== "0" || (typed && performance.now() - typing < 800))) numbered(key);
    else if (run && !(key === " " && event.target.closest("button"))) run(event);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => { if (stage && event.key === " ") stage.hand = false; });

  const help = document.body.appendChild(recordPage.helpOf(KEYS));
  byId("help").addEventListener("click", () => help.showModal());
  byId("download").addEventListener("click", () =>
    node("a", { href: decisions.fileOf(), download: "decisions.jsonl" }).click());
  byId("wanted").addEventListener("submit", (event) => event.preventDefault());
  byId("wanted").addEventListener("change", () => {
    history.replaceState(null, "", `#${new URLSearchParams(wanted())}`);
    sent().then(() => load());
  });
  window.addEventListener("beforeunload", (event) => decisions.mayBeLost() && event.preventDefault());
  window.addEventListener("hashchange", () => { readAddress(); load(); });
  readAddress();
  load();
})();
