// The grid of a review: boxes of one thing, of which the wrong ones are marked and the rest is accepted.
"use strict";

const reviewGrid = (() => {
  const { node } = recordPage, { found, boxes, given, placeOf, pause } = reviewDecisions, { tell } = reviewTelling;
  const FIRST = 11; // cells count from here: two digits each
  const LOOK = 500; // milliseconds within which nobody has seen a page

  // Stands in `main`; next(marked) shows what comes once a page is sent, of which the items `marked` were wrong.
  function of(main, decisions, next) {
    let page = { items: [] }, wrong = new Set(), closed = null; // a page that is sent, or not seen yet

    function draw(now, title, marked = [], tools = []) {
      [page, wrong, closed] = [now, new Set(), now];
      const heads = [...new Set(page.items.map((item) => item.head))];
      const cells = page.items.map((item, n) => {
        const view = decisions.viewOf(item), e = found(view, item.id);
        const cell = node("button", { type: "button", class: "cell", "aria-pressed": "false" },
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
      page.items.forEach((item, n) => marked.includes(item) && mark(n));
      seen(now);
    }
    function mark(n) {
      if (!page.items[n]) return;
      wrong[wrong.has(n) ? "delete" : "add"](n);
      main.querySelectorAll(".cell")[n].setAttribute("aria-pressed", String(wrong.has(n)));
    }
    function decide() {
      const crops = main.querySelectorAll(".crop"), isSeen = (img) => img && img.naturalWidth > 0;
      const told = [...page.items.keys()].filter((n) => wrong.has(n) || isSeen(crops[n].querySelector("img")));
      const seconds = decisions.elapsed() / told.length, nameOf = (n) => `${page.items[n].record} ${page.items[n].id}`;
      const phrases = new Map(told.map((n) => [nameOf(n), []]));
      told.forEach((n) => phrases.get(nameOf(n)).push(n));
      if (told.length < page.items.length) tell("What can't be seen isn't accepted with the rest: it comes again.");
      for (const places of phrases.values()) {
        const items = places.map((n) => page.items[n]), view = decisions.viewOf(items[0]), e = found(view, items[0].id);
        const instances = boxes(e), change = { id: e.id, after: given(e, { instances }) };
        for (const n of places) instances[placeOf(view, page.items[n])].verified = !wrong.has(n);
        decisions.commit(instances.some((i) => i.verified === false) ? "reject" : "accept", view, [change],
          { items, seconds: seconds * items.length, queue: items[0].why });
      }
    }
    async function accept() {
      if (closed === page) return;
      const sent = closed = page, marked = [...wrong].map((n) => page.items[n]);
      if (!page.isSent) decisions.together(decide);
      page.isSent = true; // what comes next may fail, and is then asked for again
      await decisions.sent();
      if (page !== sent) return; // another one was asked for meanwhile
      await next(marked);
      if (page === sent) closed = null; // nothing came
    }
    // A second Enter must not accept what came up under the first: its pictures are there, and a moment has passed.
    async function seen(shown) {
      const pictures = [...main.querySelectorAll(".cell img")], cells = main.querySelector(".cells");
      const inView = pictures.filter((picture) => picture.getBoundingClientRect().top < innerHeight);
      await Promise.allSettled(inView.map((picture) => picture.decode()));
      await pause(LOOK);
      cells.removeAttribute("aria-busy");
      if (closed === shown) closed = null;
    }
    return { draw, accept, isClosed: () => closed === page, typed: (number) => mark(number - FIRST) };
  }
  return { of };
})();
