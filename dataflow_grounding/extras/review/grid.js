// The grid of a review: boxes of one thing, of which the wrong ones are marked and the rest is accepted.
"use strict";

const reviewGrid = (() => {
  const { node } = recordPage, { found, viewOf, placeOf } = reviewDecisions;
  const FIRST = 11; // cells count from here: two digits each
  const LOOK = 500; // milliseconds within which nobody has seen a page

  const main = document.getElementById("main");
  let page = { items: [] }, wrong = new Set(); // items that are marked
  let closed = null; // a page that is sent, or not seen yet

  function draw(now, title, marked = [], tools = []) {
    [page, wrong, closed] = [now, new Set(marked), now];
    const heads = [...new Set(page.items.map((item) => item.head))];
    const cells = page.items.map((item, n) => {
      const view = viewOf(item), e = found(view, item.id);
      const cell = node("button", { type: "button", class: "cell", "aria-pressed": String(wrong.has(item)) },
        recordPage.cropOf(view, e.instances[placeOf(view, item)], e.color, 130),
        node("span", { class: "phrase", dir: "auto" }, node("kbd", null, String(n + FIRST)), " ", e.text));
      cell.addEventListener("click", (event) => {
        mark(n);
        if (event.detail) cell.blur(); // after a click, unlike a key, Enter is the page's again
      });
      return cell;
    });
    main.replaceChildren(
      node("h2", { id: "head" }, heads.slice(0, 9).join(", "), heads.length > 9 && " …", `: ${title}`),
      node("div", { class: "cells", role: "group", "aria-labelledby": "head", "aria-busy": true }, cells),
      node("p", { class: "tools" }, tools));
    seen(now);
  }
  function mark(n) {
    const item = page.items[n];
    if (!item) return;
    wrong[wrong.has(item) ? "delete" : "add"](item);
    main.querySelectorAll(".cell")[n].setAttribute("aria-pressed", String(wrong.has(item)));
  }
  function decide() {
    const crops = main.querySelectorAll(".crop"), isSeen = (img) => img && img.naturalWidth > 0;
    const told = page.items.filter((item, n) => wrong.has(item) || isSeen(crops[n].querySelector("img")));
    const seconds = reviewDecisions.elapsed() / told.length;
    if (told.length < page.items.length) {
      reviewDecisions.tell("What can't be seen isn't accepted with the rest: it comes again.");
    }
    for (const items of Map.groupBy(told, ({ record, id }) => `${record} ${id}`).values()) {
      const view = viewOf(items[0]), e = found(view, items[0].id), instances = reviewDecisions.boxes(e);
      for (const item of items) instances[placeOf(view, item)].verified = !wrong.has(item);
      reviewDecisions.commit(instances.some((i) => i.verified === false) ? "reject" : "accept", view,
        [{ id: e.id, after: reviewDecisions.given(e, { instances }) }],
        { items, seconds: seconds * items.length, queue: items[0].why });
    }
  }
  // Send the page; next(marked) shows what comes then, of which the items `marked` were wrong.
  async function accept(next) {
    if (closed === page) return;
    const sent = closed = page, marked = [...wrong];
    if (!page.isSent) reviewDecisions.together(decide);
    page.isSent = true; // what comes next may fail, and is then asked for again
    await reviewDecisions.sent();
    if (page !== sent) return; // another one was asked for meanwhile
    await next(marked);
    if (page === sent) closed = null; // nothing came
  }
  // A second Enter must not accept what came up under the first: its pictures are there, and a moment has passed.
  async function seen(shown) {
    const pictures = [...main.querySelectorAll(".cell img")], cells = main.querySelector(".cells");
    const inView = pictures.filter((picture) => picture.getBoundingClientRect().top < innerHeight);
    await Promise.allSettled(inView.map((picture) => picture.decode()));
    await reviewDecisions.pause(LOOK);
    cells.removeAttribute("aria-busy");
    if (closed === shown) closed = null;
  }
  return { draw, accept, isClosed: () => closed === page, typed: (number) => mark(number - FIRST) };
})();
