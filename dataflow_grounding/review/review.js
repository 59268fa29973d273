// The page of a review: what is asked for, the two ways to go through it, and the keys.
"use strict";

(() => {
  const { node } = recordPage;
  const { isShown, placeOf, viewOf, sent, tell, announce, counted } = reviewDecisions;
  const AHEAD = 20; // items that are asked for at once, but for the grid
  const TYPING = 800; // milliseconds within which a second digit belongs to the first
  const ALWAYS = ["a", "x", "]"]; // keys whose buttons aren't in the menu

  const byId = (id) => document.getElementById(id);
  const main = byId("main");
  const fields = byId("wanted").elements;
  let page = { items: [], place: 0 };
  let at = 0; // the index of the item that is looked at, one by one; 0 in the grid
  let typed = ""; // digits of a number that may go on
  let typedAt = 0; // when the last of them was

  const failed = (error) => error && tell(`This page failed: ${error.message}. What is saved stays; reload it.`);
  window.addEventListener("error", (event) => failed(event.error));
  window.addEventListener("unhandledrejection", (event) => failed(event.reason));

  // What is wanted is in the address, so that a reload or a bookmark goes on there.
  const isGrid = () => fields.mode.value === "grid";
  const wanted = () => Object.fromEntries(new FormData(byId("wanted")));
  function readAddress() {
    new URLSearchParams(location.hash.slice(1)).forEach((value, name) => {
      if (fields[name]) fields[name].value = value;
    });
    tellMode();
  }
  function tellMode() {
    for (const button of byId("ways").children) {
      button.setAttribute("aria-pressed", String(button.value === fields.mode.value));
    }
  }
  function wantAnew() {
    act();
    tellMode();
    history.replaceState(null, "", `#${new URLSearchParams(wanted())}`);
    return sent().then(() => load());
  }
  function want(changes) {
    for (const [name, value] of Object.entries(changes)) fields[name].value = value;
    return wantAnew();
  }

  // Ask for the items from a place of the queue on, and show them, beginning with the one that `goal` names.
  async function load(place = 0, goal = {}) {
    let asked;
    try {
      asked = await reviewDecisions.ask({ ...wanted(), place, most: AHEAD });
      if (isGrid() && place && !asked.items.length) asked = await askAgain();
    } catch (error) {
      at = Math.max(0, Math.min(at, page.items.length - 1));
      main.inert = false; // what was there stays
      return tell(error.said ? error.message : "The server doesn't answer: is `review` still running?");
    }
    page = asked;
    at = Math.max(0, page.items.findIndex((item) => isGoal(item, goal)));
    offerOrder(page.order);
    offerClasses(page.classes);
    return draw();
  }
  const isGoal = ({ record, id, box }, goal) =>
    record === goal.record && id === goal.id && (goal.box === undefined || box === goal.box);
  // At the end of the grid, items that were passed over, as their pictures couldn't be seen, come again.
  async function askAgain() {
    const again = await reviewDecisions.ask({ ...wanted(), place: 0, most: AHEAD });
    const items = again.items.filter((item) => !reviewDecisions.isDecided(viewOf(item), item));
    return { ...again, items };
  }
  function offerOrder(order) { // a sample and a folder have their own
    fields.order.parentElement.hidden = order === null;
    if (order && !fields.order.value) fields.order.value = order;
  }
  function offerClasses(classes) { // a list is chosen from; where there is none, nouns are typed
    const typed = fields.head;
    if (!classes.length || typed.localName === "select") return;
    const options = classes.map(([name, count]) => node("option", { value: name }, `${name} (${count.toLocaleString("en")})`));
    const select = node("select", { name: "head" }, node("option", { value: "" }, "any"), options);
    if (typed.value && !classes.some(([name]) => name === typed.value)) select.append(node("option", null, typed.value));
    select.value = typed.value;
    typed.previousSibling.textContent = "Class ";
    typed.replaceWith(select);
  }

  function draw(marked) {
    const again = page.items.length > 0 && page.items[at].again;
    typed = "";
    main.inert = false;
    tellShown();
    reviewDecisions.begin();
    if (!page.items.length) drawEnd();
    else if (isGrid()) drawGrid(again, marked);
    else reviewSingle.show(page.items[at]);
    if (again) tell(again);
  }
  function tellShown() {
    const names = { rejected: "rejected", mend: "to mend", mine: "mine", all: "in all" };
    const name = names[wanted().show] || (wanted().record && "found");
    byId("shown").textContent = name ? `${reviewDecisions.shown().toLocaleString("en")} ${name} · ` : "";
  }
  function drawGrid(again, marked) {
    const isEmpty = page.items[0].box === null;
    const task = isEmpty ? "mark what is in the picture all the same, then Enter" : "mark what is wrong, then Enter";
    const tools = [
      button(isEmpty ? "Confirm the rest" : "Accept the rest", "Enter", accept, "first"),
      !isEmpty && button("Not in the picture", "m", reviewGrid.markAbsent),
      again && button("Leave them", "]", leave),
      undoButton(),
    ];
    reviewGrid.draw(page, again ? `not taken; ${task}` : task, marked, tools);
  }
  function drawEnd() { // of the queue: single records may have been passed over
    const { boxes, phrases } = reviewDecisions.left();
    const open = page.order === null && boxes + phrases > 0 // a sample
      ? `${counted(boxes + phrases, "item")} of this sample open: certify counts what is open as wrong. ` : "";
    const text = open + (isMoreShown() ? "That was the last one." : nothingLeftText(boxes + phrases));
    const back = isMoreShown() && button(wanted().show ? "From the beginning" : "What was passed over", "[", () => load());
    const [command, purpose] = page.order === null
      ? ["certify", "to say how much is wrong"] // a sample
      : ["apply", "for data without what is wrong"];
    const next = node("p", { class: "note next" }, "Every decision is saved. When you are done: Ctrl-C in the ",
      "terminal, then ", node("code", null, `dataflowgrounding ${command}`), ` with the same results, ${purpose}.`);
    main.replaceChildren(node("p", { class: "note" }, text), next,
      node("p", { class: "tools toolbar" }, back, ...waysOn(phrases), undoButton()));
    announce(`The end; left: ${reviewDecisions.leftText()}`);
  }
  function isMoreShown() {
    const isOfGrid = ["", "empty"].includes(wanted().show); // of which what was passed over has come again
    return reviewDecisions.shown() > 0 && !(isGrid() && isOfGrid);
  }
  function nothingLeftText(left) {
    if (wanted().record || wanted().show) return "Nothing is left of what is shown here.";
    return left > 0 ? "Nothing is left that has a box." : "Nothing is left to decide here.";
  }
  // Where to go from the end.
  function waysOn(phrases) {
    const toMend = reviewDecisions.toMend();
    const isOf = ({ show }) => wanted().show === show;
    const mend = { mode: "single", show: "mend" };
    const empty = { mode: "grid", show: "empty" };
    const isToMend = toMend > 0 && !isOf(mend);
    const mendText = `Mend ${toMend.toLocaleString("en")} rejected`;
    return [
      isToMend && button(mendText, "", () => want(mend), "first"),
      phrases > 0 && isGrid() && !isOf(empty)
        && button(`Look at ${counted(phrases, "phrase")} without a box`, "", () => want(empty), isToMend ? "" : "first"),
    ];
  }

  const isTyping = () => document.activeElement.localName === "textarea";
  const leaveComment = () => { if (isTyping()) document.activeElement.blur(); }; // what was typed is then saved
  // An action begins: what was typed is saved, what was told has been read. A page of the grid under way allows none.
  function act() {
    leaveComment();
    closeMenu();
    if (!isGrid() || !reviewGrid.isClosed()) reviewDecisions.forget();
  }
  function taken(items, view, old) {
    if (isGrid()) return;
    bringBack(items);
    if (view && page.items[at]) reviewSingle.taken(view, old, isTyping());
  }
  // Items of which nothing was taken come next, unless they are what is looked at.
  function bringBack(items) {
    const now = page.items[at] || {};
    const others = items.filter((item) => item.record !== now.record || item.id !== now.id);
    const again = reviewDecisions.whyRefused();
    page.items.splice(at + 1, 0, ...others.map((item) => ({ ...item, again })));
  }

  const accept = () => reviewGrid.accept(nextPage);
  // After a page of the grid: what was refused of it, with its marks, else the next page.
  async function nextPage(marked) {
    const refused = reviewDecisions.refused();
    const isThere = (item) => item.box === null || placeOf(viewOf(item), item) !== null;
    const items = page.items.filter((item) => refused.includes(item) && isThere(item));
    const marks = marked.filter(([item]) => items.includes(item));
    if (!items.length) return load(page.place);
    items.forEach((item) => { item.again = reviewDecisions.whyRefused(); });
    page = { ...page, items, isSent: false };
    at = 0;
    return draw(marks);
  }
  const leave = () => page.items[0].again && load(page.place);

  function undo(again) {
    const last = reviewDecisions.undo(again);
    if (!last) return null;
    announce(again ? "Done again" : "Undone");
    const decision = last.find(({ id }) => id) || last[0];
    const { place, id, items: [item] } = decision;
    if (isGrid() || !page.items.some(({ record }) => record === place)) {
      return sent().then(() => load(0, item || { record: place, id }));
    }
    at = placeOfUndone(decision);
    reviewSingle.show(page.items[at]);
    return reviewSingle.pick(id, item && item.id === id ? placeOf(viewOf(item), item) : null);
  }
  function placeOfUndone({ place, id, items: [item] }) {
    const isOf = ({ record }) => record === place;
    const places = [page.items.indexOf(item), page.items.findIndex((one) => isOf(one) && one.id === id),
      page.items.findIndex(isOf)];
    return places.find((n) => n >= 0);
  }
  // Go on to the next item that is still asked for, or back; at the end of those that are here, ask for more.
  function go(by) {
    const isPassed = (item) => item && !item.again && !isShown(wanted(), viewOf(item), item);
    do at += by; while (isPassed(page.items[at]));
    main.inert = !page.items[at]; // what is still shown is no longer what keys are for
    if (page.items[at]) return draw();
    return sent().then(() => (page.items[at] ? draw() : load(by > 0 ? page.place : 0)));
  }

  // Buttons: some in sight, the others in a menu.
  function button(name, key, run, look) {
    const made = node("button", { type: "button", class: look, "aria-keyshortcuts": key || null }, name,
      key && " ", key && node("kbd", null, key));
    made.addEventListener("mousedown", (event) => event.preventDefault()); // the selection in the caption stays
    made.addEventListener("click", (event) => {
      act();
      run(event);
    });
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

  const GRID_ACTIONS = {
    Enter: [null, accept],
    m: [null, reviewGrid.markAbsent],
    "]": [null, leave],
    z: [null, () => undo()],
    y: [null, () => undo(true)],
  };
  const END_ACTIONS = {
    "[": [null, () => (page.items.length ? go(-1) : load())],
    z: GRID_ACTIONS.z,
    y: GRID_ACTIONS.y,
  };
  function actionsNow() {
    if (!page.items[at]) return END_ACTIONS;
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
    if (!page.items[at] || !/^[0-9]$/.test(key)) return false;
    return isGrid() || key !== "0" || (typed !== "" && isWithin());
  }
  const isUndo = (event) => (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  function keyOf(event) {
    if (isUndo(event)) return event.shiftKey ? "y" : "z";
    return event.key === "Z" ? "y" : event.key;
  }
  // Whether a key belongs to what has the focus, such as Enter on a button.
  function isOfFocus(event) {
    const whose = { Enter: "button, summary, li", " ": "button, summary" }[event.key];
    const focused = whose && event.target.closest(whose);
    if (focused && focused.localName === "li") focused.click();
    return Boolean(focused);
  }
  function pressed(event) {
    const field = event.target.closest("input, select, textarea, dialog");
    if (field && event.key === "Escape") event.target.blur();
    if (field || ((event.ctrlKey || event.metaKey) && !isUndo(event))) return;
    if (event.key === "?") {
      byId("keys").showModal();
      return;
    }
    if (event.key === "Enter" && event.repeat) { // held down, it means one page
      event.preventDefault();
      return;
    }
    if (event.key === "Escape" && menuNow()) {
      closeMenu();
      return;
    }
    if (!isOfFocus(event)) runKey(event, keyOf(event));
  }
  function runKey(event, key) {
    const [, run] = actionsNow()[key] || [];
    if (isNumber(key)) numbered(key);
    else if (run) {
      act();
      run(event);
    } else return;
    event.preventDefault();
  }
  document.addEventListener("keydown", pressed);
  document.addEventListener("keyup", (event) => { if (event.key === " ") reviewSingle.letGo(); });

  Object.assign(reviewDecisions.page, { why: () => page.items[at]?.why || "", unsent: reviewGrid.unsent, taken, counted: tellShown });
  Object.assign(reviewSingle.page, { act, go, undo: () => undo(), redo: () => undo(true), tools: toolsOfSingle, button });
  for (const way of byId("ways").children) {
    way.addEventListener("mousedown", (event) => event.preventDefault()); // keys stay the page's
    way.addEventListener("click", () => want({ mode: way.value }));
  }
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("download").addEventListener("click", () => {
    act();
    node("a", { href: reviewDecisions.fileOf(), download: "decisions.jsonl" }).click();
  });
  byId("wanted").addEventListener("submit", (event) => event.preventDefault());
  byId("wanted").addEventListener("change", wantAnew);
  window.addEventListener("beforeunload", (event) => {
    leaveComment();
    if (reviewDecisions.mayBeLost()) event.preventDefault();
  });
  window.addEventListener("hashchange", () => {
    act();
    readAddress();
    load();
  });
  const narrow = matchMedia("(max-width: 52rem)"); // as in review.css
  const fitFilters = () => { byId("filters").open = !narrow.matches; };
  narrow.addEventListener("change", fitFilters);
  fitFilters();
  readAddress();
  load();
})();
