// A review on the page: the two ways to go through what is asked for, in the grid and one by one, and the keys.
"use strict";

const reviewPage = (() => {
  const { node } = recordPage;
  const { main, asked } = page;
  const { viewOf, placeOf, tell, announce, counted, left } = reviewDecisions;
  const GRID = 60; // things on a page of the grid
  const AHEAD = 20; // records that are asked for at once, one by one
  const TYPING = 800; // milliseconds within which a second digit belongs to the first
  const ALWAYS = ["a", "x", "]"]; // keys whose buttons aren't in the menu
  const WAYS = ["]", "[", "z", "y", "Enter"]; // keys that decide on nothing that is shown one by one

  const byId = (id) => document.getElementById(id);
  let list = []; // what is asked for, in its order
  let at = 0; // the place in it of what is shown one by one, and of what comes after a page of the grid
  let shown = { items: [] }; // a page of the grid
  let typed = ""; // digits of a number that may go on
  let typedAt = 0; // when the last of them was
  let acting = Promise.resolve(); // what is done goes one after the other

  const failed = (error) => error && tell(`This page failed: ${error.message}. What is saved stays; reload it.`);
  window.addEventListener("error", (event) => failed(event.error));
  window.addEventListener("unhandledrejection", (event) => failed(event.reason));

  const isGrid = () => asked().view !== "single";
  const isWanted = (item) => reviewDecisions.isAsked(asked().of || "", item);

  // What is asked for: of a sample in its order; boxes in the grid by their class or noun, that with the largest doubt
  // first, each phrase's together; else the most doubtful first, or as the file has them.
  function listOf(state) {
    const items = page.itemsAmong(page.matching(state), state).filter(isWanted);
    const sample = reviewDecisions.sample();
    if (sample) {
      const names = new Set(items.map(({ place, number }) => `${place} ${number}`));
      return sample.filter(({ place, number }) => names.has(`${place} ${number}`));
    }
    if (!isGrid()) return state.order === "file" ? items : items.sort((a, b) => b.doubt - a.doubt);
    if (state.of === "empty") return items;
    const boxes = items.filter(({ box }) => box !== null);
    const groups = [...Map.groupBy(boxes, (item) => page.labelOf(item)).values()]
      .map((group) => ({ group, doubt: group.reduce((sum, { doubt }) => sum + doubt, 0) }));
    return groups.sort((a, b) => b.doubt - a.doubt).flatMap(({ group }) =>
      group.sort((a, b) => page.textOf(a).localeCompare(page.textOf(b))));
  }
  // Show what the address asks for, once what was begun is done.
  function show() {
    act(); // what was typed is saved
    acting = acting.then(() => showNow()).catch(failed);
    return acting;
  }
  // The same at once; one by one it begins with the record at a place where that is asked for.
  async function showNow(place = null) {
    const state = asked();
    list = listOf(state);
    tellShown();
    at = isGrid() ? 0 : Math.max(0, list.findIndex((item) => item.place === place));
    page.part(".pages.main").replaceChildren();
    main.className = "records";
    document.querySelector("[name=order]").parentElement.hidden = Boolean(reviewDecisions.sample());
    page.part(".note").replaceChildren(page.isFiltered(state)
      ? node("a", { href: page.addressOf({ view: state.view, order: state.order }) }, "Clear filters") : "");
    return isGrid() ? showPage() : showSingle();
  }

  async function showPage() {
    const items = [];
    for (; at < list.length && items.length < GRID; at++) if (isWanted(list[at])) items.push(list[at]);
    return drawGrid({ items });
  }
  async function drawGrid(now, marked) {
    shown = now;
    typed = "";
    if (!now.items.length) return drawEnd();
    if (!(await known(now.items))) return null;
    const isEmpty = now.items[0].box === null;
    const task = isEmpty ? "mark what is in the picture all the same, then Enter" : "mark what is wrong, then Enter";
    const tools = [
      button(isEmpty ? "Confirm the rest" : "Accept the rest", "Enter", accept, "first"),
      !isEmpty && button("Not in the picture", "m", reviewGrid.markAbsent),
      now.again && button("Leave them", "]", leave),
      undoButton(),
    ];
    reviewGrid.draw(now, now.again ? `not taken; ${task}` : task, marked, tools);
    if (now.again) tell(now.again);
    return null;
  }
  const accept = () => reviewGrid.accept(nextPage);
  // After a page of the grid: what was refused of it, with its marks, else the next page. At the end, what was passed
  // over, as its picture couldn't be seen, comes again.
  async function nextPage(marked) {
    const refused = reviewDecisions.refused();
    const items = shown.items.filter((item) => refused.includes(item) && (item.box === null || placeOf(item) !== null));
    const again = reviewDecisions.whyRefused();
    if (items.length) return drawGrid({ items, again }, marked.filter(([item]) => items.includes(item)));
    if (!list.slice(at).some(isWanted) && !isRepeated()) at = 0;
    return showPage();
  }
  const isRepeated = () => !["", "empty"].includes(asked().of || ""); // what was decided is shown again
  const leave = () => shown.again && showPage();

  async function showSingle() {
    if (!list[at]) return drawEnd();
    if (!(await known(list.slice(at, at + AHEAD)))) return null;
    typed = "";
    reviewSingle.show(list[at]);
    return null;
  }
  // Go on to the next item that is still asked for, or back.
  function go(by) {
    do at += by; while (list[at] && !isWanted(list[at]));
    at = Math.max(at, 0);
    return showSingle();
  }

  // Whether the records of items are here. While they are on their way, what is still shown isn't what keys are for.
  async function known(items) {
    if (items.every(viewOf)) return true;
    main.inert = true;
    try {
      await reviewDecisions.viewsAt(items.map(({ place }) => place));
    } catch (error) {
      tell(error.said ? error.message : "The server doesn't answer: is `review` still running?");
      return false;
    } finally {
      main.inert = false;
    }
    return true;
  }
  function tellShown() {
    const { of = "" } = asked();
    const name = { rejected: "rejected", mend: "to mend", mine: "mine", all: "in all" }[of]
      || (page.isFiltered(asked()) && "found");
    byId("shown").textContent = name ? `${page.count(list.filter(isWanted).length)} ${name} · ` : "";
  }

  function drawEnd() { // single records may have been passed over
    const open = reviewDecisions.sample() && left.boxes + left.phrases > 0
      ? `${counted(left.boxes + left.phrases, "item")} of this sample open: certify counts what is open as wrong. ` : "";
    const isMore = list.some(isWanted);
    const back = isMore && button(isRepeated() ? "From the beginning" : "What was passed over", "[", () => again());
    const [command, purpose] = reviewDecisions.sample()
      ? ["certify", "to say how much is wrong"] : ["apply", "for data without what is wrong"];
    main.inert = false;
    main.replaceChildren(node("p", { class: "note" }, open, isMore ? "That was the last one." : nothingLeftText()),
      node("p", { class: "note next" }, "Every decision is saved. When you are done: Ctrl-C in the terminal, then ",
        node("code", null, `dataflowgrounding ${command}`), ` with the same results, ${purpose}.`),
      node("p", { class: "tools toolbar" }, back, ...waysOn(), undoButton()));
    shown = { items: [] };
    announce(`The end; left: ${reviewDecisions.leftText()}`);
  }
  const again = () => showNow();
  function nothingLeftText() {
    if (page.isFiltered(asked())) return "Nothing is left of what is shown here.";
    return left.boxes + left.phrases > 0 ? "Nothing is left that has a box." : "Nothing is left to decide here.";
  }
  // Where to go from the end.
  function waysOn() {
    const { of } = asked();
    const isToMend = left.toMend > 0 && of !== "mend";
    const mend = () => page.go({ view: "single", of: "mend" });
    return [
      isToMend && button(`Mend ${page.count(left.toMend)} rejected`, "", mend, "first"),
      left.phrases > 0 && isGrid() && of !== "empty" && button(`Look at ${counted(left.phrases, "phrase")} without a box`, "",
        () => page.go({ view: "", of: "empty" }), isToMend ? "" : "first"),
    ];
  }

  const isTyping = () => document.activeElement.localName === "textarea";
  const leaveComment = () => { if (isTyping()) document.activeElement.blur(); }; // what was typed is then saved
  // An action: what was typed is saved, what was told has been read. While nothing can be saved, there is none.
  function act(run) {
    leaveComment();
    closeMenu();
    if (run && !reviewDecisions.isLost()) acting = acting.then(() => begin(run)).catch(failed);
    return acting;
  }
  function begin(run) {
    if (!isGrid() || !reviewGrid.isClosed()) reviewDecisions.forget();
    return run();
  }
  async function undo(redo) {
    const last = await reviewDecisions.undo(redo);
    if (!last) return null;
    announce(redo ? "Done again" : "Undone");
    const [{ place, ids: [id] }] = last;
    if (isGrid() || !list.some((item) => item.place === place)) return showNow(place);
    const isOfPhrase = (item) => item.place === place && reviewDecisions.idOf(item) === id;
    if (!list[at] || !isOfPhrase(list[at])) {
      at = list.findIndex(isOfPhrase);
      if (at < 0) at = list.findIndex((item) => item.place === place);
    }
    await showSingle();
    return id && reviewSingle.pickUnlessPicked(id);
  }

  // Buttons: some in sight, the others in a menu.
  function button(name, key, run, look) {
    const made = node("button", { type: "button", class: look, "aria-keyshortcuts": key || null }, name,
      key && " ", key && node("kbd", null, key));
    made.addEventListener("mousedown", (event) => event.preventDefault()); // the selection in the caption stays
    made.addEventListener("click", (event) => act(() => run(event)));
    return made;
  }
  const undoButton = () => button("Undo", "z", () => undo());
  function toolsOfSingle() {
    const buttonOf = (key) => {
      const [name, run] = reviewSingle.actions[key];
      return button(name, key, run, key === "a" ? "first" : null);
    };
    const others = Object.keys(reviewSingle.actions)
      .filter((key) => reviewSingle.actions[key][0] && !ALWAYS.includes(key));
    const menu = node("details", { class: "menu" }, node("summary", null, "More"),
      node("div", { class: "choices" }, others.map(buttonOf)));
    return node("p", { class: "tools toolbar" }, ALWAYS.map(buttonOf), menu);
  }
  const menuNow = () => document.querySelector(".menu[open]");
  const closeMenu = () => { if (menuNow()) menuNow().open = false; };
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".menu")) closeMenu(); });

  const UNDO = { z: [null, () => undo()], y: [null, () => undo(true)] };
  const GRID_ACTIONS = { ...UNDO, Enter: [null, accept], m: [null, reviewGrid.markAbsent], "]": [null, leave] };
  const END_ACTIONS = { ...UNDO, "[": [null, () => (isGrid() ? again() : go(-1))] };
  function actionsNow() {
    if (asked().view === "pictures") return {};
    if (isGrid() ? !shown.items.length : !list[at]) return END_ACTIONS;
    return isGrid() ? GRID_ACTIONS : reviewSingle.actions;
  }

  const isWithin = () => performance.now() - typedAt < TYPING;
  function numbered(digit) {
    const most = isGrid() ? 99 : reviewSingle.phraseCount();
    typed = isWithin() && Number(typed + digit) <= most ? typed + digit : digit;
    typedAt = performance.now();
    if (!isGrid()) reviewSingle.pickNumber(Number(typed));
    else if (typed.length === reviewGrid.digits()) {
      reviewGrid.typed(Number(typed));
      typed = "";
    }
  }
  function isNumber(key) {
    if (![GRID_ACTIONS, reviewSingle.actions].includes(actionsNow()) || !/^[0-9]$/.test(key)) return false;
    return isGrid() || key !== "0" || (typed !== "" && isWithin());
  }
  const isUndo = (event) => (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  function keyOf(event) {
    if (isUndo(event)) return event.shiftKey ? "y" : "z";
    return event.key === "Z" ? "y" : event.key;
  }
  // Whether a key belongs to what has the focus, such as Enter on a button.
  function isOfFocus(event) {
    const whose = { Enter: "button, summary, li, a", " ": "button, summary" }[event.key];
    const focused = whose && event.target.closest(whose);
    if (focused && focused.localName === "li") focused.click();
    return Boolean(focused);
  }
  function pressed(event) {
    const field = event.target.closest("input, select, textarea, dialog");
    if (field && event.key === "Escape") event.target.blur();
    if (field || ((event.ctrlKey || event.metaKey) && !isUndo(event))) return;
    const isHeld = event.key === "Enter" && event.repeat; // it means one page
    if (event.key === "?") byId("keys").showModal();
    else if (isHeld) event.preventDefault();
    else if (event.key === "Escape" && menuNow()) closeMenu();
    else if (!isOfFocus(event)) runKey(event, keyOf(event));
  }
  function runKey(event, key) {
    const [, run] = actionsNow()[key] || [];
    const isOfNumber = isNumber(key);
    if (!run && !isOfNumber) return;
    event.preventDefault();
    if (main.inert) return; // what is still shown is gone
    const seen = list[at]; // by the time that a key has its turn, another one may be shown
    act(() => (isOfNumber ? numbered(key) : (WAYS.includes(key) || list[at] === seen) && run(event)));
  }
  document.addEventListener("keydown", pressed);
  document.addEventListener("keyup", (event) => { if (event.key === " ") reviewSingle.letGo(); });

  Object.assign(reviewDecisions.hooks, { unsent: reviewGrid.unsent, told: tellShown });
  Object.assign(reviewSingle.hooks, { act, go, undo: () => undo(), redo: () => undo(true), tools: toolsOfSingle, button });
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("download").addEventListener("click", () =>
    node("a", { href: reviewDecisions.fileOf(), download: "decisions.jsonl" }).click());
  window.addEventListener("beforeunload", (event) => {
    leaveComment();
    if (reviewDecisions.mayBeLost()) event.preventDefault();
  });
  return { show };
})();
