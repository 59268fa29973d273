// One by one: a single record of a review, in which boxes and phrases are mended.
"use strict";

const reviewSingle = (() => {
  const { node } = recordPage;
  const { found, boxes, given, placeOf, viewOf, commit, hint, announce } = reviewDecisions;
  const HOW_TO_MEND = "Drag in the picture to draw the right box; a drag inside the picked one moves it. ] goes on.";
  const MOVED = "The moved box counts as right: z takes that back.";
  const PICK_FIRST = "Pick a phrase first: by its number, or by a click in the list.";

  const main = document.getElementById("main");
  const page = {}; // what the page does: act() when an action begins, go(by), undo(), redo()
  let item = null; // what is looked at
  let picked = { id: null, box: null };
  let stage = null;
  let drawn = { rows: [] }; // what stands on the page

  const viewNow = () => viewOf(item);
  const current = () => found(viewNow(), picked.id);
  const boxNow = () => current()?.instances[picked.box]?.bbox || null;
  const isPicked = (e, instance) => e.id === picked.id && (picked.box === null || e.instances[picked.box] === instance);

  function show(now) {
    item = now;
    pick(item.id, placeOf(viewNow(), item));
    if (document.forms.wanted.elements.show.value === "mend") hint(HOW_TO_MEND);
  }
  function pick(id, box = null) {
    const e = found(viewNow(), id);
    const isOnlyBox = e && e.instances.length === 1;
    picked = { id: e ? id : null, box: isOnlyBox ? 0 : box };
    drawNow();
    announce(pickedText(e));
  }
  function pickedText(e) {
    if (!e) return `${viewNow().id}: no phrase is picked`;
    const boxText = picked.box === null ? reviewDecisions.counted(e.instances.length, "box", "boxes")
      : `box ${picked.box + 1} of ${e.instances.length}`;
    return `${e.text}, ${boxText}`;
  }
  // The phrase, or the next of its boxes where it is picked already.
  function pickNext(e) {
    if (picked.id !== e.id || !e.instances.length) return pick(e.id);
    const last = picked.box === null ? -1 : picked.box;
    return pick(e.id, (last + 1) % e.instances.length);
  }
  function pickNumber(number) {
    const e = viewNow().expressions[number - 1];
    if (e) pickNext(e);
  }

  // Rows of the list that changed are made anew; the rest of the record, too, where it has other phrases.
  function drawNow() {
    if (!boxNow()) picked.box = null; // it was deleted, by whomever
    const view = viewNow();
    const rows = view.expressions.map((e) => JSON.stringify(e));
    const phrases = view.expressions.map((e) => [e.id, e.text, e.span, e.color]);
    const outline = JSON.stringify([view.place, view.comment, phrases]);
    if (drawn.outline !== outline || !drawn.article.isConnected) drawn = { outline, rows, ...drawRecord(view) };
    view.expressions.forEach((e, n) => {
      if (rows[n] !== drawn.rows[n]) drawn.list.children[n].replaceWith(rowOf(e, view));
      drawn.list.children[n].classList.toggle("picked", e.id === picked.id);
    });
    drawn.rows = rows;
    stage = reviewStage(view, boxNow(), isPicked, { draw: drawBox, move: moveBox, click: clicked }, stage);
    drawn.article.querySelector("figure").replaceChildren(stage.board, view.missing);
  }
  function rowOf(e, view) {
    const shown = e.reviewed_by ? { ...e, check: "" } : e; // the verdict says it
    const row = recordPage.rowOf(shown, view);
    row.addEventListener("click", () => pickNext(e));
    row.querySelector(".detail").append(verdictOf(e));
    return row;
  }
  function verdictOf(e) {
    if (!e.reviewed_by) return "";
    const wrong = e.instances.filter((box) => box.verified === false).length;
    const word = e.verified ? "right" : "wrong";
    const count = wrong && e.instances.length > 1 ? `: ${wrong} of ${e.instances.length} boxes` : "";
    return node("span", { class: e.verified ? "verdict" : "verdict no" }, `${word}${count}, says ${e.reviewed_by}`);
  }
  function drawRecord(view) {
    const list = node("ul", { class: "expressions" }, view.expressions.map((e) => rowOf(e, view)));
    const text = node("div", { class: "text" },
      node("h2", { dir: "auto" }, view.id),
      node("p", { class: "facts" }, view.path),
      view.notes.map((note) => node("p", { class: "missing" }, note)),
      recordPage.captionOf(view),
      view.expressions.length ? list : recordPage.listOf(view),
      commentOf(view));
    const article = recordPage.lightsUp(node("article", { class: "record single" }, node("figure"), text));
    main.replaceChildren(page.tools(), article);
    return { article, list };
  }
  function commentOf(view) {
    const comment = node("textarea", { rows: 2, "aria-label": "Comment", placeholder: "Comment (c)" });
    comment.value = view.comment;
    comment.addEventListener("change", () => commit("comment", latest(view), [], { comment: comment.value }));
    return comment;
  }
  const latest = ({ place }) => viewOf({ record: place });
  function clicked(point) {
    const hit = recordPage.hitsOf(recordPage.boxesOf(viewNow()), ...point);
    const last = hit.findIndex(({ e, instance }) => picked.box !== null && isPicked(e, instance));
    const next = hit[(last + 1) % hit.length];
    if (next) pick(next.e.id, next.e.instances.indexOf(next.instance));
    else pick(picked.id);
  }

  // What keys and buttons do to what is picked.
  function change(action, e, more, items) {
    page.act();
    commit(action, viewNow(), [{ id: e.id, after: given(e, more) }], items && { items });
    drawNow();
  }
  // Of a phrase the picked box, else all; of a record what nobody judged yet.
  function judge(verified) {
    const changes = current() ? [judged(current(), isMeant, verified)] : judgedRest(verified);
    commit(verified ? "accept" : "reject", viewNow(), changes, { items: [item] });
    announce(verified ? "Accepted" : "Rejected");
    page.go(1);
  }
  const isOpen = (box) => typeof box.verified !== "boolean";
  const isMeant = (box, n) => picked.box === null || picked.box === n;
  function judgedRest(verified) {
    const open = viewNow().expressions.filter((e) => !e.reviewed_by || e.instances.some(isOpen));
    return open.map((e) => judged(e, isOpen, verified));
  }
  function judged(e, isTold, verified) {
    const instances = boxes(e).map((box, n) => (isTold(box, n) ? { ...box, verified } : box));
    return { id: e.id, after: given(e, { verified, instances }) };
  }
  function moveBox(bbox) {
    const instances = boxes(current());
    const box = instances[picked.box];
    if (String(bbox) === String(box.bbox)) return drawNow(); // what moves nothing decides nothing
    const kept = cutToPicture(bbox, viewNow());
    instances[picked.box] = { ...box, bbox: kept, verified: true };
    change("move", current(), { instances });
    hint(MOVED);
    announce(`Box at ${kept.map(Math.round).join(", ")}`);
    return null;
  }
  // As the server cuts it, and before it answers: else the next key would move a box of another size, by how soon it
  // was pressed. A box that is outside of the picture stays, so that the server says so.
  function cutToPicture([x1, y1, x2, y2], { width, height }) {
    if (!width || !height) return [x1, y1, x2, y2];
    const inside = [Math.max(x1, 0), Math.max(y1, 0), Math.min(x2, width), Math.min(y2, height)];
    return inside[0] < inside[2] && inside[1] < inside[3] ? inside : [x1, y1, x2, y2];
  }
  // In place of the picked box, else a further one.
  function drawBox(bbox) {
    const e = current();
    if (!e) return hint(PICK_FIRST);
    if (bbox[2] - bbox[0] < 1 || bbox[3] - bbox[1] < 1) return drawNow();
    const exact = bbox.map((n) => Math.round(n * 100) / 100);
    const instances = boxes(e);
    const from = picked.box;
    if (from === null) picked.box = instances.length;
    instances[picked.box] = { from, bbox: exact, verified: true };
    change("draw", e, { instances, status: "grounded" }, from === null ? undefined : [item]);
    announce(from === null ? "Box drawn" : "Box replaced");
    return null;
  }
  // The next box that is drawn is a further one of the picked phrase.
  function addBox() {
    if (!current()) return hint(PICK_FIRST);
    picked.box = null;
    drawNow();
    return hint("Draw a further box of this phrase.");
  }
  function arrow(event) {
    const far = event.shiftKey ? 10 : 1;
    const by = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
    if (boxNow()) stage.nudge(event.altKey && [false, false, true, true], by);
  }
  function nothingThere() {
    if (!current()) return;
    change("absent", current(), { instances: [], status: "none", verified: true }, [item]);
    announce("Not in the picture");
  }
  function remove() {
    const e = current();
    if (e && picked.box === null) removePhrase(e);
    else if (e) removeBox(e);
  }
  function removePhrase(e) {
    commit("delete", viewNow(), [{ id: e.id, after: null }], { items: [item] });
    announce(`Deleted: ${e.text}`);
    pick(null);
  }
  function removeBox(e) {
    if (reviewDecisions.undraw(viewNow(), e, picked.box)) return pick(e.id);
    const instances = boxes(e).filter((_, n) => n !== picked.box);
    const bare = !instances.length && { status: "none", verified: null }; // what was judged was the box
    picked.box = null;
    change("delete", e, { instances, ...bare }, [item]);
    announce("Box deleted");
    return null;
  }
  function phrased(way) {
    const view = viewNow();
    const changes = reviewPhrases(way, view, current());
    const isWhyNot = typeof changes === "string";
    hint(isWhyNot ? changes : "");
    if (isWhyNot) return;
    commit(way, view, changes);
    getSelection().removeAllRanges();
    pick(changes[0].id);
  }
  // First the phrase without one of its boxes, then nothing.
  function unpick() {
    picked = { id: picked.box === null ? null : picked.id, box: null };
    drawNow();
    announce(pickedText(current()));
  }
  function pointOut() {
    stage.fourPoints();
    hint("Click the outermost points: left, top, right, bottom, in any order.");
  }

  // A decision has made something else of the record: `view` where it is the one looked at, `old` before.
  function taken(view, old, isTyping) {
    if (!stage || !item || viewNow() !== view) return;
    if (picked.id && !found(view, picked.id)) { // one that was added has another id now
      const { text } = found(old, picked.id) || {};
      const now = view.expressions.find((e) => !found(old, e.id) && e.text === text);
      picked.id = now ? now.id : null;
    }
    if (!stage.isBusy() && !isTyping && getSelection().isCollapsed) drawNow();
  }

  const actions = { // by key: what its button says, where it has one, and what it does
    a: ["Accept", () => judge(true)],
    x: ["Reject", () => judge(false)],
    "]": ["Next", () => page.go(1)],
    "[": ["Previous", () => page.go(-1)],
    m: ["Not in the picture", nothingThere],
    b: ["Add a box", addBox],
    f: ["Four points", pointOut],
    Delete: ["Delete", remove],
    e: ["Phrase = selection", () => phrased("phrase")],
    n: ["New phrase", () => phrased("add")],
    s: ["Split", () => phrased("split")],
    j: ["Join with next", () => phrased("join")],
    z: ["Undo", () => page.undo()],
    y: ["Redo", () => page.redo()],
    "+": ["Zoom in", () => stage.zoom(1.25)],
    "-": ["Zoom out", () => stage.zoom(0.8)],
    0: [null, () => stage.whole()],
    Backspace: [null, remove],
    c: ["Comment", () => document.querySelector("textarea").focus()],
    Escape: [null, unpick],
    ArrowLeft: [null, arrow],
    ArrowRight: [null, arrow],
    ArrowUp: [null, arrow],
    ArrowDown: [null, arrow],
    " ": [null, () => { stage.hand = true; }],
  };
  const letGo = () => { if (stage) stage.hand = false; }; // of the picture, which Space holds
  return { page, actions, show, pick, pickNumber, drawNow, taken, letGo, phraseCount: () => viewNow().expressions.length };
})();
