// The grid of a review: boxes of one thing, or phrases without a box, of which the wrong ones are marked and the rest is
// accepted.
"use strict";

const reviewGrid = (() => {
  const { node } = recordPage;
  const { found, viewOf, placeOf, counted } = reviewDecisions;
  const LOOK = 500; // milliseconds within which nobody has seen a page
  const CROP = 130; // CSS pixels of a box's crop
  const LARGE_CROP = 200; // where a few fill a wide page
  const MOST_LARGE = 10; // cells, so that nobody has to scroll
  const MOST_HEADS = 9; // things named above a page

  const main = document.getElementById("main");
  let page = { items: [] };
  let wrong = new Set(); // items that are marked
  let closed = null; // a page that is sent, or not seen yet

  function draw(now, task, marked, tools) {
    page = now;
    closed = now;
    wrong = new Set(marked || page.items.filter((item) => reviewDecisions.isRejected(viewOf(item), item)));
    const isOfBoxes = page.items[0].box !== null;
    const isRoomy = isOfBoxes && page.items.length <= MOST_LARGE && matchMedia("(min-width: 60rem)").matches;
    const shape = isRoomy ? "cells large" : isOfBoxes ? "cells" : "cells whole";
    const cells = page.items.map((item, n) => cellOf(item, n, isRoomy ? LARGE_CROP : CROP));
    main.replaceChildren(
      node("h2", { id: "head" }, headOf(isOfBoxes), ": ", task),
      node("div", { class: shape, role: "group", "aria-labelledby": "head",
        "aria-busy": true }, cells),
      node("p", { class: "tools toolbar" }, tools));
    reviewDecisions.announce(`${counted(cells.length, "cell")}, ${wrong.size} marked: ${headOf(isOfBoxes)}`);
    seen(now);
  }
  function headOf(isOfBoxes) {
    if (!isOfBoxes) return "Phrases without a box";
    const heads = [...new Set(page.items.map((item) => item.head || "–"))];
    return heads.slice(0, MOST_HEADS).join(", ") + (heads.length > MOST_HEADS ? " …" : "");
  }
  // Cells count from 1; with ten or more of them, by two digits each, so that a number is typed whole at once.
  const digits = () => (page.items.length > 9 ? 2 : 1);
  const numberOf = (n) => String(n + 1).padStart(digits(), "0");
  function cellOf(item, n, side) {
    const view = viewOf(item);
    const e = found(view, item.id);
    const picture = item.box === null ? wholeOf(view)
      : recordPage.cropOf(view, e.instances[placeOf(view, item)], e.color, side);
    const number = node("kbd", null, numberOf(n));
    const cell = node("button", { type: "button", class: "cell", "aria-pressed": String(wrong.has(item)) }, picture,
      node("span", { class: "phrase", dir: "auto" }, number, " ", e.text),
      item.box === null && e.status !== "none" && node("span", { class: "open" }, e.status));
    cell.addEventListener("click", (event) => {
      mark(n);
      if (event.detail) cell.blur(); // after a click, unlike a key, Enter is the page's again
    });
    return cell;
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
    const item = page.items[n];
    if (!item) return;
    wrong[wrong.has(item) ? "delete" : "add"](item);
    const cell = main.querySelectorAll(".cell")[n];
    cell.setAttribute("aria-pressed", String(wrong.has(item)));
    if (document.activeElement !== cell) { // else its state is told by itself
      reviewDecisions.announce(`${numberOf(n)} ${wrong.has(item) ? "marked as wrong" : "not marked"}`);
    }
  }

  // What a page says: each item that was seen or marked, unless it says so already.
  function decide() {
    const crops = main.querySelectorAll(".crop");
    const isSeen = (n) => crops[n].querySelector("img")?.naturalWidth > 0;
    const told = page.items.filter((item, n) => wrong.has(item) || isSeen(n));
    const seconds = reviewDecisions.elapsed() / told.length;
    const unseen = page.items.length - told.length;
    const byPhrase = Map.groupBy(told.filter(isNews), ({ record, id }) => `${record} ${id}`);
    for (const items of byPhrase.values()) decidePhrase(items, seconds * items.length);
    reviewDecisions.announce(`${told.length - wrong.size} accepted, ${wrong.size} marked as wrong`);
    if (unseen) reviewDecisions.hint(`What can't be seen isn't accepted with the rest: ${unseen} of it comes again.`);
  }
  function isNews(item) {
    const view = viewOf(item);
    return !reviewDecisions.isDecided(view, item) || reviewDecisions.isRejected(view, item) !== wrong.has(item);
  }
  function decidePhrase(items, seconds) {
    const view = viewOf(items[0]);
    const e = found(view, items[0].id);
    const instances = reviewDecisions.boxes(e);
    for (const item of items) {
      if (item.box !== null) instances[placeOf(view, item)].verified = !wrong.has(item);
    }
    const verified = !items.some((item) => wrong.has(item));
    const isWrong = instances.some((box) => box.verified === false) || !verified;
    // Who passes over a phrase without a box says that it isn't there, whatever the model left open.
    const isAbsent = !instances.length && verified;
    const status = isAbsent ? "none" : e.status;
    const change = { id: e.id, after: reviewDecisions.given(e, { instances, verified, status }) };
    reviewDecisions.commit(isWrong ? "reject" : "accept", view, [change], { items, seconds, queue: items[0].why });
  }

  // Send the page; next(marked) shows what comes then, of which the items `marked` were wrong.
  async function accept(next) {
    if (closed === page) return;
    const sent = page;
    const marked = [...wrong];
    closed = sent;
    if (!sent.isSent) reviewDecisions.together(decide);
    sent.isSent = true; // what comes next may fail, and is then asked for again
    await reviewDecisions.sent();
    if (page !== sent) return; // another one was asked for meanwhile
    await next(marked);
    if (page === sent) closed = null; // nothing came
  }
  // A second Enter must not accept what came up under the first: its pictures are there, and a moment has passed.
  async function seen(shown) {
    const cells = main.querySelector(".cells");
    const pictures = [...cells.querySelectorAll("img")];
    const inView = pictures.filter((picture) => picture.getBoundingClientRect().top < innerHeight);
    await Promise.allSettled(inView.map((picture) => picture.decode()));
    await reviewDecisions.pause(LOOK);
    cells.removeAttribute("aria-busy");
    if (closed === shown) closed = null;
  }
  return { draw, accept, isClosed: () => closed === page, digits, typed: (number) => mark(number - 1) };
})();
