// The grid of a review: boxes of one thing, or phrases without a box, of which the wrong ones are marked and the rest is
// accepted.
"use strict";

const reviewGrid = (() => {
  const { node } = recordPage;
  const { viewOf, phraseOf, placeOf, counted, othersOf, isDecided, isRejected } = reviewDecisions;
  const LOOK = 500; // milliseconds within which nobody has seen a page
  const CROP = 130; // CSS pixels of a box's crop
  const LARGE_CROP = 200; // where a few fill a wide page
  const MOST_LARGE = 10; // cells, so that nobody has to scroll
  const MOST_HEADS = 9; // things named above a page

  const { main } = page;
  let shown = { items: [] }; // the page that is shown
  // Marks that aren't sent, by item: they outlast a change of the view. A decision that was taken since, in the other
  // mode, counts in place of a mark.
  const marks = new Map();
  let last = null; // the item that was marked last
  let closed = null; // a page that is sent, or not seen yet
  const onScreen = new Set(); // the page's cells that have been on the screen, nearly whole and above the toolbar
  let scrolledTo = null; // the cell that Enter went to, in place of accepting what is below
  const screen = new IntersectionObserver(noteOnScreen, { threshold: .9, rootMargin: "0px 0px -48px" });
  const toBeSeen = node("span", { class: "facts", role: "status" }); // how many haven't been there, next to the buttons

  // Show a page of the grid: its items, what to do, marks of it that were refused, and its buttons.
  function draw(now, task, marked, tools) {
    shown = now;
    closed = now;
    last = null;
    for (const [item, word] of marked || []) setMark(item, word);
    const isOfBoxes = shown.items[0].box !== null;
    const isRoomy = isOfBoxes && shown.items.length <= MOST_LARGE && matchMedia("(min-width: 60rem)").matches;
    const shape = isRoomy ? "cells large" : isOfBoxes ? "cells" : "cells whole";
    const cells = shown.items.map((item, n) => cellOf(item, n, isRoomy ? LARGE_CROP : CROP));
    main.replaceChildren(
      node("h2", { id: "head" }, headOf(isOfBoxes), ": ", task),
      node("div", { class: shape, role: "group", "aria-labelledby": "head",
        "aria-busy": true }, cells),
      node("p", { class: "tools toolbar" }, tools, toBeSeen));
    shown.items.forEach((item, n) => showMark(n));
    screen.disconnect();
    onScreen.clear();
    scrolledTo = null;
    scrollTo(0, 0); // where the page before was accepted, its last cells were on the screen
    main.querySelectorAll(".cell").forEach((cell) => screen.observe(cell));
    reviewDecisions.announce(`${counted(cells.length, "cell")}, ${markedOnPage().length} marked: ${headOf(isOfBoxes)}`);
    seen(now);
  }

  function noteOnScreen(entries) {
    for (const entry of entries) {
      if (entry.isIntersecting) onScreen.add(entry.target);
    }
    const count = notSeen().length;
    toBeSeen.textContent = count ? `${count} of the page still to be seen: Enter goes there first` : "";
  }
  // The cells that have a picture, and that nobody can have looked at.
  function notSeen() {
    return [...main.querySelectorAll(".cell:has(img)")].filter((cell) => !onScreen.has(cell));
  }
  // Go to the first of them, in place of accepting what nobody has seen.
  function showUnseen(cells) {
    scrolledTo = cells[0];
    scrolledTo.scrollIntoView({ block: "start" });
    closed = shown;
    main.querySelector(".cells").setAttribute("aria-busy", true);
    seen(shown);
  }

  // A mark is "wrong", "absent" (wrong, and what the phrase means is nowhere in the picture) or "right".
  const keyOf = ({ place, number }) => `${place} ${number}`;
  function markOf(item) {
    const kept = marks.get(keyOf(item));
    if (kept && kept.wasDecided === isDecided(item)) return kept.word;
    return isRejected(item) ? "wrong" : "right";
  }
  function setMark(item, word) {
    marks.set(keyOf(item), { item, word, wasDecided: isDecided(item) });
  }
  const isMarked = (item) => markOf(item) !== "right";
  const markedOnPage = () => shown.items.filter(isMarked);
  // How many items have a mark that says something new.
  function unsent() {
    const items = [...marks.values()].map(({ item }) => item);
    return items.filter((item) => isMarked(item) !== isRejected(item) || markOf(item) === "absent").length;
  }
  function headOf(isOfBoxes) {
    if (!isOfBoxes) return "Phrases without a box";
    const heads = [...new Set(shown.items.map((item) => page.labelOf(item) || "–"))];
    return heads.slice(0, MOST_HEADS).join(", ") + (heads.length > MOST_HEADS ? " …" : "");
  }
  // Cells count from 1; with ten or more of them, by two digits each, so that a number is typed whole at once.
  const digits = () => (shown.items.length > 9 ? 2 : 1);
  const numberOf = (n) => String(n + 1).padStart(digits(), "0");
  function cellOf(item, n, side) {
    const view = viewOf(item), e = phraseOf(item);
    const picture = item.box === null ? wholeOf(view) : recordPage.cropOf(view, e.instances[placeOf(item)], e.color, side);
    const number = node("kbd", null, numberOf(n));
    const cell = node("button", { type: "button", class: "cell" }, picture,
      node("span", { class: "phrase", dir: "auto" }, number, " ", [e.text, ...othersOf(item)].join(", ")),
      item.box === null && e.status !== "none" && node("span", { class: "open" }, e.status));
    cell.addEventListener("click", (event) => {
      mark(n);
      if (event.detail) cell.blur(); // after a click, unlike a key, Enter is the page's again
    });
    return node("div", { class: "slot" }, cell, recordPage.fullLink(view));
  }
  // The whole picture, in which a phrase has no box.
  function wholeOf(view) {
    const frame = node("div", { class: "crop" });
    const gone = (why) => frame.replaceChildren(node("span", { class: "missing" }, why));
    if (!view.thumbnail) {
      gone(view.missing);
      return frame;
    }
    const picture = node("img", { alt: "", decoding: "async", src: view.thumbnail });
    picture.addEventListener("error", () => gone(recordPage.NOT_SHOWN));
    frame.append(picture);
    return frame;
  }
  function mark(n) {
    const item = shown.items[n];
    if (!item) return;
    setMark(item, isMarked(item) ? "right" : "wrong");
    last = item;
    showMark(n);
    reviewDecisions.tellSaved();
    if (document.activeElement !== main.querySelectorAll(".cell")[n]) { // else its state is told by itself
      reviewDecisions.announce(`${numberOf(n)} ${isMarked(item) ? "marked as wrong" : "not marked"}`);
    }
  }
  function showMark(n) {
    const item = shown.items[n];
    const cell = main.querySelectorAll(".cell")[n];
    cell.setAttribute("aria-pressed", String(isMarked(item)));
    cell.querySelector(".absent")?.remove();
    if (markOf(item) === "absent") cell.append(node("span", { class: "absent" }, "not in the picture"));
  }
  // Mark all cells of a phrase as "absent", or as "wrong" where they are that already. The phrase is that of the cell
  // which has the focus or, if none has, was marked last.
  function markAbsent() {
    const focused = shown.items[[...main.querySelectorAll(".cell")].indexOf(document.activeElement)];
    const marked = focused || last;
    if (!marked || marked.box === null) {
      reviewDecisions.hint("Mark a box first: m then says that what its phrase means is nowhere in the picture.");
      return;
    }
    const word = markOf(marked) === "absent" ? "wrong" : "absent";
    shown.items.forEach((item, n) => {
      if (item.place !== marked.place || item.e !== marked.e) return;
      setMark(item, word);
      showMark(n);
    });
    last = marked;
    reviewDecisions.tellSaved();
    reviewDecisions.announce(word === "absent" ? "Not in the picture" : "Marked as wrong");
  }

  // The decisions on each item of the page that was seen or marked, unless that has been decided so already.
  function decisions() {
    const crops = main.querySelectorAll(".crop");
    const isSeen = (n) => crops[n].querySelector("img")?.naturalWidth > 0;
    const told = shown.items.filter((item, n) => isMarked(item) || isSeen(n));
    const marked = markedOnPage().length;
    const unseen = shown.items.length - told.length;
    reviewDecisions.announce(`${told.length - marked} accepted, ${marked} marked as wrong`);
    if (unseen) reviewDecisions.hint(`What can't be seen isn't accepted with the rest: ${unseen} of it comes again.`);
    const byPhrase = Map.groupBy(told.filter(isNews), ({ place, e }) => `${place} ${e}`);
    return [...byPhrase.values()].map(decisionOn);
  }
  const isNews = (item) => !isDecided(item) || isMarked(item) !== isRejected(item) || markOf(item) === "absent";
  function decisionOn(items) {
    const view = viewOf(items[0]), { id, text, instances } = phraseOf(items[0]);
    const decisionOf = (acts) => reviewDecisions.decisionOf(view, acts, { items });
    // A reviewer who accepts a phrase without a box says that it isn't there, even if the model left that open.
    if (items[0].box === null) return decisionOf([isMarked(items[0]) ? { id, right: false } : { id, absent: true }]);
    const wrong = new Set(items.filter(isMarked).map(placeOf));
    if (items.some((item) => markOf(item) === "absent")) {
      if (instances.every(({ verified }, n) => wrong.has(n) || verified === false)) return decisionOf([{ id, absent: true }]);
      reviewDecisions.hint(`“${text}” has other boxes in its picture: what is marked is rejected alone.`);
    }
    return decisionOf(items.map((item) => ({ id, box: instances[placeOf(item)].bbox, right: !isMarked(item) })));
  }

  // Send the page; next(marked) shows what comes then, where `marked` are pairs of the items sent and their marks.
  async function accept(next) {
    if (closed === shown) return;
    noteOnScreen(screen.takeRecords());
    const unseen = shown.isSent ? [] : notSeen();
    // A window may be too low for a whole cell: where Enter has been before, it goes on.
    if (unseen.length && unseen[0] !== scrolledTo) {
      showUnseen(unseen);
      return;
    }
    const sent = shown;
    sent.marked = sent.isSent ? sent.marked : sent.items.map((item) => [item, markOf(item)]);
    closed = sent;
    const made = sent.isSent ? [] : decisions();
    sent.items.forEach((item) => marks.delete(keyOf(item)));
    sent.isSent = true; // what comes next may fail, and is then asked for again
    if (made.length) await reviewDecisions.commit(made);
    await next(sent.marked);
    if (shown === sent) closed = null; // nothing came
  }
  // A second Enter must not accept what came up under the first: its pictures are there, and a moment has passed.
  async function seen(now) {
    const cells = main.querySelector(".cells");
    const pictures = [...cells.querySelectorAll("img")];
    const inView = pictures.filter((picture) => {
      const { top, bottom } = picture.getBoundingClientRect();
      return top < innerHeight && bottom > 0;
    });
    await Promise.allSettled(inView.map((picture) => picture.decode()));
    await reviewDecisions.pause(LOOK);
    cells.removeAttribute("aria-busy");
    if (closed === now) closed = null;
  }
  const typed = (number) => mark(number - 1);
  return { draw, accept, markAbsent, unsent, isClosed: () => closed === shown, digits, typed };
})();
