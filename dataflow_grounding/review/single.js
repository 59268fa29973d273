// One by one: a single record of a review, in which boxes and phrases are mended.
"use strict";

const reviewSingle = (() => {
  const { node } = recordPage;
  const { found, placeOf, viewOf, hint, announce } = reviewDecisions;
  const HOW_TO_MEND = "Drag in the picture to draw the right box; a drag inside the picked one moves it. ] goes on.";
  const RESIZED = "The moved box counts as right.";
  const SHIFTED = "Moved, not judged yet: a accepts it.";
  const LOCKED = "This box is locked: l unlocks it.";
  const PICK_FIRST = "Pick a phrase first: by its number, or by a click in the list.";

  const hooks = {}; // what review.js does: act(run), go(by), undo(), redo(), tools(), button()
  let item = null; // what is looked at
  let picked = { id: null, box: null }; // an expression's id, and the index of one of its boxes; null for all of them
  let stage = null;
  let drawn = { rows: [] }; // what is on the page

  const viewNow = () => viewOf(item);
  const current = () => found(viewNow(), picked.id);
  const boxNow = () => current()?.instances[picked.box]?.bbox || null;
  // Boxes that aren't seen, or can't be changed, by record, phrase and number; of this page alone.
  const hidden = new Set();
  const locked = new Set();
  const boxName = (e, n) => `${item.place} ${e.id} ${n}`;
  const isIn = (set, e, instance) => set.has(boxName(e, e.instances.indexOf(instance)));
  const isLocked = () => picked.box !== null && locked.has(boxName(current(), picked.box));
  const isPicked = (e, instance) => e.id === picked.id && (picked.box === null || e.instances[picked.box] === instance);

  function show(now) {
    item = now;
    pick(reviewDecisions.idOf(item), placeOf(item));
    const others = reviewDecisions.othersOf(item).map((text) => `“${text}”`).join(", ");
    if (page.asked().of === "mend") hint(HOW_TO_MEND);
    else if (others) hint(`One thing with a box of ${others}: what you decide counts for each.`);
  }
  function pick(id, box = null) {
    const e = found(viewNow(), id);
    const isOnlyBox = e && e.instances.length === 1;
    picked = { id: e ? id : null, box: isOnlyBox ? 0 : box };
    drawNow();
    announce(pickedText(e));
  }
  const pickUnlessPicked = (id) => (picked.id === id ? null : pick(id));
  function pickedText(e) {
    if (!e) return `${viewNow().id}: no phrase is picked`;
    const boxText = picked.box === null ? reviewDecisions.counted(e.instances.length, "box", "boxes")
      : `box ${picked.box + 1} of ${e.instances.length}`;
    return `${e.text}, ${boxText}`;
  }
  // Pick a phrase or, where it is picked already, the next of its boxes.
  function pickNext(e) {
    if (picked.id !== e.id || !e.instances.length) return pick(e.id);
    const last = picked.box === null ? -1 : picked.box;
    return pick(e.id, (last + 1) % e.instances.length);
  }
  function pickNumber(number) {
    const e = viewNow().expressions[number - 1];
    if (e) pickNext(e);
  }

  // Rows of the list that changed are drawn again, and the rest of the record if it has other phrases.
  function drawNow() {
    if (!boxNow()) picked.box = null; // it was deleted, by whomever
    const view = viewNow();
    const rows = view.expressions.map((e) => JSON.stringify([e, switchedOn(hidden, e), switchedOn(locked, e)]));
    const phrases = view.expressions.map((e) => [e.id, e.text, e.span, e.color]);
    const outline = JSON.stringify([view.place, view.comment, phrases]);
    if (drawn.outline !== outline || !drawn.article.isConnected) drawn = { outline, rows, ...drawRecord(view) };
    view.expressions.forEach((e, n) => {
      if (rows[n] !== drawn.rows[n]) drawn.list.children[n].replaceWith(rowOf(e, view));
      drawn.list.children[n].classList.toggle("picked", e.id === picked.id);
    });
    drawn.rows = rows;
    const seen = recordPage.boxesOf(view).filter(({ e, instance }) => !isIn(hidden, e, instance));
    const does = { draw: (...box) => hooks.act(() => drawBox(...box)), move: (...box) => hooks.act(() => moveBox(...box)), click: clicked };
    stage = reviewStage(view, seen, isLocked() ? null : boxNow(), isPicked, does, stage);
    drawn.article.querySelector("figure").replaceChildren(stage.board, view.missing);
    recordPage.relight(drawn.article);
  }
  function rowOf(e, view) {
    const shown = e.reviewed_by ? { ...e, check: "" } : e; // the verdict says it
    const row = recordPage.rowOf(shown, view);
    row.addEventListener("click", () => pickNext(e));
    row.querySelector(".detail").append(verdictOf(e));
    if (e.instances.length) row.append(switchesOf(e));
    return row;
  }
  // How many of a phrase's boxes are hidden, or locked.
  const switchedOn = (set, e) => e.instances.filter((_, n) => set.has(boxName(e, n))).length;
  function switchesOf(e) {
    const switchOf = (name, key, set) => {
      const isOn = switchedOn(set, e) > 0;
      const made = node("button", { type: "button", class: "switch", "aria-pressed": String(isOn),
        title: `${isOn ? "Don't " : ""}${name} its boxes (${key})` }, name);
      made.addEventListener("mousedown", (event) => event.preventDefault());
      made.addEventListener("click", (event) => {
        event.stopPropagation(); // the phrase isn't picked
        flip(set, e, null);
      });
      return made;
    };
    return node("span", { class: "switches" }, switchOf("hide", "h", hidden), switchOf("lock", "l", locked));
  }
  // Hide or lock one box, or all of a phrase (`box` null); where all of these are, show or unlock them.
  function flip(set, e, box) {
    const names = e.instances.map((_, n) => boxName(e, n)).filter((_, n) => box === null || n === box);
    const isOn = names.every((name) => set.has(name));
    names.forEach((name) => set[isOn ? "delete" : "add"](name));
    const [on, off] = set === hidden ? ["Hidden", "Shown"] : ["Locked", "Unlocked"];
    announce(`${isOn ? off : on}: ${e.text}`);
    drawNow();
  }
  function flipPicked(set) {
    if (!current()) return hint(PICK_FIRST);
    flip(set, current(), picked.box);
    return hint(set === locked && isLocked() ? LOCKED : "");
  }
  function verdictOf(e) {
    const isShifted = ({ evidence, verified }) => evidence === "person" && typeof verified !== "boolean";
    if (!e.reviewed_by && e.instances.some(isShifted)) return node("span", { class: "verdict" }, "moved, not judged");
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
      node("p", { class: "facts" }, view.path, " ", recordPage.fullLink(view)),
      view.notes.map((note) => node("p", { class: "missing" }, note)),
      recordPage.captionOf(view),
      view.expressions.length ? list : recordPage.listOf(view),
      commentOf(view));
    const article = recordPage.lightsUp(node("article", { class: "record single" }, node("figure"), text));
    page.main.replaceChildren(hooks.tools(), article);
    return { article, list };
  }
  function commentOf(view) {
    const comment = node("textarea", { rows: 2, "aria-label": "Comment", placeholder: "Comment (c)" });
    comment.value = view.comment;
    comment.addEventListener("change", () => hooks.act(() =>
      reviewDecisions.commit([reviewDecisions.decisionOf(viewOf(view), [], { comment: comment.value })])));
    return comment;
  }
  function clicked(point) {
    const free = recordPage.boxesOf(viewNow())
      .filter(({ e, instance }) => !isIn(hidden, e, instance) && !isIn(locked, e, instance));
    const hit = recordPage.hitsOf(free, ...point);
    const last = hit.findIndex(({ e, instance }) => picked.box !== null && isPicked(e, instance));
    const next = hit[(last + 1) % hit.length];
    if (next) pick(next.e.id, next.e.instances.indexOf(next.instance));
    else pick(picked.id);
  }

  // Decide by acts, and show what stands then; returns the ids of what was decided on, none where it was refused.
  async function commit(acts, items) {
    const [taken] = await reviewDecisions.commit([reviewDecisions.decisionOf(viewNow(), acts, { items })]);
    drawNow();
    return taken ? taken.ids : [];
  }
  // Judge the picked box; without one, all boxes of the picked phrase; without a phrase, what nobody judged of the
  // record.
  async function judge(right) {
    const acts = current() ? judged(current(), isMeant, right) : judgedRest(right);
    const taken = await commit(acts, [item]);
    if (!taken.length) return;
    announce(right ? "Accepted" : "Rejected");
    await hooks.go(1);
  }
  const isOpen = (box) => typeof box.verified !== "boolean";
  const isMeant = (box, n) => picked.box === null || picked.box === n;
  function judgedRest(right) {
    const open = viewNow().expressions.filter((e) => !e.reviewed_by || e.instances.some(isOpen));
    return open.flatMap((e) => judged(e, isOpen, right));
  }
  function judged({ id, instances }, isTold, right) {
    if (!instances.length) return [right ? { id, absent: true } : { id, right }];
    return instances.filter(isTold).map(({ bbox }) => ({ id, box: bbox, right }));
  }
  // A box that was dragged as a whole isn't judged by that: it may have been a slip.
  async function moveBox(corners, isShifted = false) {
    const { id } = current();
    const box = boxNow();
    if (String(corners) === String(box)) return drawNow(); // what moves nothing decides nothing
    const taken = await commit([{ id, box, corners, right: isShifted ? null : true }]);
    if (!taken.length) return null;
    hint(isShifted ? SHIFTED : RESIZED, hooks.button("Undo", "z", hooks.undo));
    announce(`Box at ${boxNow()?.map(Math.round).join(", ")}`);
    return null;
  }
  // Put a drawn box in the place of the picked one; without one, it is a further box of the picked phrase.
  async function drawBox(bbox) {
    const e = current();
    if (!e) return hint(PICK_FIRST);
    if (isLocked()) {
      drawNow();
      return hint(LOCKED);
    }
    if (bbox[2] - bbox[0] < 1 || bbox[3] - bbox[1] < 1) return drawNow();
    const exact = bbox.map((n) => Math.round(n * 100) / 100);
    const box = boxNow();
    if (!box) picked.box = e.instances.length;
    await commit([{ id: e.id, right: true, ...(box ? { box, corners: exact } : { new: exact }) }], [item]);
    announce(box ? "Box replaced" : "Box drawn");
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
    if (isLocked()) return hint(LOCKED);
    const far = event.shiftKey ? 10 : 1;
    const by = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
    if (boxNow()) return moveBox(stage.nudged(event.altKey && [false, false, true, true], by));
    return null;
  }
  async function nothingThere() {
    if (!current()) return;
    await commit([{ id: current().id, absent: true }], [item]);
    announce("Not in the picture");
  }
  function remove() {
    const e = current();
    if (!e) return null;
    return picked.box === null ? removePhrase(e) : removeBox(e);
  }
  async function removePhrase(e) {
    await commit([{ id: e.id, gone: true }], [item]);
    announce(`Deleted: ${e.text}`);
    pick(null);
  }
  async function removeBox(e) {
    if (isLocked()) return hint(LOCKED);
    const box = boxNow();
    picked.box = null;
    await commit([{ id: e.id, box, gone: true }], [item]);
    announce("Box deleted");
    return null;
  }
  // Give the picked box, or all of the phrase, to another phrase: with classes, say which class it is.
  async function giveTo(other) {
    const e = current();
    const meant = e.instances.filter(isMeant).map(({ bbox }) => bbox);
    const taken = await commit([
      ...meant.map((bbox) => ({ id: other.id, new: bbox, of: e.id, right: true })),
      ...meant.map((bbox) => ({ id: e.id, box: bbox, gone: true })),
    ], [item]);
    if (!taken.length) return;
    pick(other.id, other.instances.length);
    hint(`Now ${other.text}.`, hooks.button("Undo", "z", hooks.undo));
    announce(`Given to ${other.text}`);
  }
  function choose() {
    const e = current();
    if (!e || !e.instances.length) return hint("Pick a box first.");
    if (isLocked()) return hint(LOCKED);
    const others = viewNow().expressions.filter((other) => other !== e);
    if (!others.length) return hint("There is no other phrase.");
    return reviewChooser(e, others, (other) => hooks.act(() => giveTo(other)));
  }
  async function phrased(way) {
    const acts = reviewPhrases(way, viewNow(), current());
    if (typeof acts === "string") return hint(acts);
    const [first] = await commit(acts);
    getSelection().removeAllRanges();
    if (first) pick(first);
    return null;
  }
  // Pick the phrase instead of one of its boxes; where that is so already, nothing.
  function unpick() {
    picked = { id: picked.box === null ? null : picked.id, box: null };
    drawNow();
    announce(pickedText(current()));
  }
  function pointOut() {
    stage.fourPoints();
    hint("Click the outermost points: left, top, right, bottom, in any order.");
  }

  const actions = { // by key: what its button says, where it has one, and what it does
    a: ["Accept", () => judge(true)],
    x: ["Reject", () => judge(false)],
    "]": ["Next", () => hooks.go(1)],
    "[": ["Previous", () => hooks.go(-1)],
    m: ["Not in the picture", nothingThere],
    k: ["Another phrase or class", choose],
    b: ["Add a box", addBox],
    f: ["Four points", pointOut],
    Delete: ["Delete", remove],
    e: ["Phrase = selection", () => phrased("phrase")],
    n: ["New phrase", () => phrased("add")],
    s: ["Split", () => phrased("split")],
    j: ["Join with next", () => phrased("join")],
    h: ["Hide", () => flipPicked(hidden)],
    l: ["Lock", () => flipPicked(locked)],
    z: ["Undo", () => hooks.undo()],
    y: ["Redo", () => hooks.redo()],
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
  return { hooks, actions, show, pickUnlessPicked, pickNumber, letGo, phraseCount: () => viewNow().expressions.length };
})();
