// The page of a review: the grid, where the wrong boxes of one thing are named, and the single record, where boxes and
// phrases are mended. What a reviewer does is shown at once and sent in order, one decision after the other; a version
// goes along with each change, so that a decision on what another changed meanwhile is refused, and shown.
// reviewData, where --static wrote it, stands for the server: decisions are then collected, for a file.
"use strict";

(() => {
  const { node, shape } = recordPage, byId = (id) => document.getElementById(id);
  const NEAR = 9, FIRST_CELL = 11; // pixels around an edge that grab it; cells count from 11: two digits each
  const KEYS = [
    ["Enter", "grid: accept all that aren't marked, and go on"], ["11 … 70, click", "grid: mark a box as wrong"],
    ["1 … 99, click", "single: pick a phrase; again: its next box"],
    ["a / x", "accept / reject what is picked, go on"],
    ["m", "not in the picture"], ["drag", "draw a box; move or resize the picked one"], ["f",
      "draw by four extreme points"],
    ["arrows", "move by 1 px, with Shift by 10; with Alt: resize"], ["Delete", "delete the picked box, or the phrase"],
    ["e / n", "make the selection in the caption the phrase / a new phrase"],
    ["s / j", "split the phrase at the selection / join it with the next one"], ["c", "comment"],
    ["z / y", "undo / redo"], ["] / [", "next / previous, undecided"], ["wheel, + − 0",
      "zoom; drag with Space or two fingers: pan"],
    ["Escape", "pick the phrase without a box; then nothing: a and x mean all"], ["?", "these keys"]];
  const views = new Map(), versions = new Map(), waiting = [], undone = [], done = [];
  let page = { items: [], place: 0, left: 0 }, at = 0, picked = { id: null, box: null }, points = null;
  let wrong = new Set(), typed = "", typing = 0, shown = performance.now(), stage = null, sending = false, pan = false;

  // Where records come from and decisions go to.
  const local = window.reviewData && collecting(window.reviewData);
  const ask = local ? local.ask : async (query) => (await answer(`next?${new URLSearchParams(query)}`));
  const send = local ? local.send : async (decision) => (await answer("decide", { decisions: decision })).answers;
  async function answer(path, body) {
    const post = body && { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body) };
    const response = await fetch(path, post || {});
    const said = await response.json();
    if (!response.ok) throw Object.assign(new Error(said.error), { said: true });
    return said;
  }

  function collecting(data) {
    const decided = new Set(), decisions = [], name = ({ record, id, box }) => `${record} ${id} ${box}`;
    const fits = (w) => (item) => !decided.has(name(item)) && (!w.status || item.status === w.status)
      && (!w.text || item.text.toLowerCase().includes(w.text.toLowerCase())) && (!w.head || item.head === w.head)
      && (!w.below || (item.score !== null && item.score < Number(w.below)));
    const said = (items, left) => ({ items, place: 0, left, heads: [...new Set(items.map((item) => item.head))],
      records: Object.fromEntries(items.map((i) => [i.record, data.records[i.record]])) });
    return {
      ask: async (w) => {
        const found = data.items.filter(fits(w)).filter((item) => w.mode !== "grid" || item.box !== null);
        if (w.mode === "grid") found.sort((a, b) => (a.head < b.head ? -1 : a.head > b.head ? 1 : 0));
        return said(found.slice(0, w.mode === "grid" ? 60 : w.most), found.length);
      },
      send: async (some) => {
        decisions.push(...some);
        some.forEach((d) => (d.items || []).forEach((item) => decided.add(name(item))));
        byId("download").hidden = false;
        return some.map(({ uid }) => ({ uid }));
      },
      text: () => decisions.map(({ items, ...decision }) => JSON.stringify(decision) + "\n").join(""),
    };
  }

  // What is wanted stands in the address, so that a reload or a bookmark goes on there.
  const wanted = () => Object.fromEntries(new FormData(byId("wanted")));
  function readAddress() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const field = byId("wanted").elements[name];
      if (field) field.value = value;
    }
  }
  const learn = (records) => Object.entries(records).forEach(([place, view]) => {
    if (waiting.some((decision) => decision.record === view.key)) return;
    views.set(Number(place), view);
    view.expressions.forEach((e) => versions.set(`${view.key} ${e.id}`, e.version));
  });
  const viewOf = (item) => views.get(item.record);
  const found = (view, id) => view.expressions.find((e) => e.id === id);
  const chars = (text) => [...text];
  const points16 = (text, n) => chars(text).slice(0, n).join("").length; // code points as UTF-16 units
  const codePoints = (text, n) => chars(text.slice(0, n)).length;

  async function load(place = 0) {
    try {
      page = await ask({ ...wanted(), place, most: 20 });
    } catch (error) {
      return tell(error.said ? error.message : "The server doesn't answer: is `review` still running?");
    }
    learn(page.records);
    at = 0;
    tell("");
    draw();
  }
  const tell = (text) => byId("refused").replaceChildren(recordPage.pageText(text));

  function draw() {
    const grid = wanted().mode === "grid", main = byId("main");
    [typed, wrong, points, shown] = ["", new Set(), null, performance.now()];
    if (!page.items.length) main.replaceChildren(node("p", { class: "note" }, "Nothing is left to decide here."));
    else if (grid) drawGrid(main);
    else pick(page.items[at].id, page.items[at].box, true);
    count();
  }
  function count() {
    byId("left").textContent = `${page.left.toLocaleString("en")} left`;
    byId("saved").textContent = waiting.length ? `${waiting.length} not saved yet` : local ? "" : "all saved";
  }

  // The grid.
  function drawGrid(main) {
    const cells = page.items.map((item, n) => {
      const view = viewOf(item), e = found(view, item.id);
      const cell = node("button", { type: "button", class: "cell", "aria-pressed": "false", "data-n": n },
        recordPage.cropOf(view, e.instances[item.box], e.color, 130),
        node("span", { class: "phrase", dir: "auto" }, node("kbd", null, String(n + FIRST_CELL)), " ", e.text));
      cell.addEventListener("click", () => mark(n));
      return cell;
    });
    main.replaceChildren(
      node("h2", { id: "head" },
        `${page.heads.slice(0, 9).join(", ")}${page.heads.length > 9 ? " …" : ""}: mark what is wrong, then Enter`),
      node("div", { class: "cells", role: "group", "aria-labelledby": "head" }, cells),
      node("p", { class: "tools" }, button("Accept the rest", "Enter", acceptRest), button("Undo", "z", undo)));
  }
  function mark(n) {
    wrong[wrong.has(n) ? "delete" : "add"](n);
    const cell = document.querySelector(`.cell[data-n="${n}"]`);
    if (cell) cell.setAttribute("aria-pressed", String(wrong.has(n)));
  }
  async function acceptRest() {
    const seconds = (performance.now() - shown) / 1000 / page.items.length, before = new Map();
    page.items.forEach((item, n) => {
      const e = structuredClone(before.get(`${item.record} ${item.id}`) || found(viewOf(item), item.id));
      e.instances[item.box].verified = !wrong.has(n);
      before.set(`${item.record} ${item.id}`, Object.assign(e, { at: item.record, why: item.why }));
    });
    for (const e of before.values()) {
      const items = page.items.filter((item) => item.record === e.at && item.id === e.id);
      const no = e.instances.some((i) => i.verified === false);
      commit(no ? "reject" : "accept", views.get(e.at), [{ id: e.id, after: given(e) }], { items,
        seconds: seconds * items.length, queue: e.why });
    }
    const place = page.place;
    await sent();
    load(place);
  }

  // A single record.
  function drawSingle() {
    const item = page.items[at], view = viewOf(item), main = byId("main");
    const list = recordPage.listOf(view) || "", caption = recordPage.captionOf(view) || "";
    for (const e of view.expressions) {
      const row = list.querySelector(`[data-e="${e.index}"]`),
        no = e.instances.filter((i) => i.verified === false).length;
      row.classList.toggle("picked", e.id === picked.id);
      row.addEventListener("click", () => pick(e.id, null));
      if (e.reviewed_by) row.append(node("span", { class: `verdict${e.verified ? "" : " no"}` },
        [e.verified ? "right" : "wrong", no ? `: ${no} of ${e.instances.length} boxes` : "", ", says ",
          e.reviewed_by]));
    }
    const comment = node("textarea", { rows: 2, "aria-label": "Comment", placeholder: "Comment (c)" });
    comment.value = view.comment || "";
    comment.addEventListener("change", () => commit("comment", view, [], { comment: comment.value }));
    stage = makeStage(view);
    const article = node("article", { class: "record single" }, node("figure", null, stage.svg, view.missing),
      node("div", { class: "text" }, node("h2", { dir: "auto" }, view.id), node("p", { class: "facts" }, view.path),
        view.notes.map((text) => node("p", { class: "missing" }, text)), caption, list, comment,
        node("p", { class: "tools" }, Object.entries(ACTIONS).filter(([, [name]]) => name)
          .map(([key, [name, run]]) => button(name, key, run)))));
    main.replaceChildren(recordPage.lightsUp(article));
  }
  const button = (name, key, run) => {
    const made = node("button", { type: "button", "aria-keyshortcuts": key }, name, " ", node("kbd", null, key));
    made.addEventListener("mousedown", (event) => event.preventDefault()); // the selection in the caption stays
    made.addEventListener("click", () => run());
    return made;
  };
  function pick(id, box, fresh = false) {
    const e = id && found(viewOf(page.items[at]), id);
    const next = e && !fresh && box === null && picked.id === id && e.instances.length
      ? ((picked.box === null ? -1 : picked.box) + 1) % e.instances.length : box;
    picked = { id: e ? id : null, box: next === null && e && e.instances.length === 1 ? 0 : next };
    drawSingle();
  }

  // The stage: a picture that zooms by the part of it that its SVG shows. Boxes are in pixels of the upright picture.
  function makeStage(view) {
    const around = stage && stage.view.place === view.place ? stage.around : [0, 0, view.width || 1, view.height || 1];
    const svg = shape("svg", { class: "stage", tabindex: 0, role: "img",
      "aria-label": `${view.expressions.length} phrases` });
    const made = { view, svg, around, new: shape("rect", { class: "new" }), dots: shape("g"), fingers: new Map() };
    svg.append(shape("image", { href: view.full || null, width: view.width, height: view.height,
      preserveAspectRatio: "none" }));
    for (const { e, instance } of recordPage.boxesOf(view)) {
      const here = e.id === picked.id && (picked.box === null || e.instances[picked.box] === instance);
      const [x1, y1, x2, y2] = instance.bbox, place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
      const box = shape("g", { class: `box link e${e.index} c${e.color}${here ? " picked" : ""}`, "data-e": e.index },
        shape("rect", { class: "halo", ...place }), shape("rect", { class: "line", ...place }));
      svg.append(box);
    }
    svg.append(made.new, made.dots);
    for (const [name, run] of Object.entries({ pointerdown: down, pointermove: move, pointerup: up, pointercancel: up,
      wheel: zoomed })) {
      svg.addEventListener(name, run, { passive: false });
    }
    look(made);
    return made;
  }
  const look = ({ svg, around }) => svg.setAttribute("viewBox", around.join(" "));
  const scale = () => stage.svg.getScreenCTM().a; // CSS pixels per pixel of the picture
  function spot(event) {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(stage.svg.getScreenCTM().inverse());
    const inside = (n, most) => Math.min(Math.max(n, 0), most);
    return [inside(place.x, stage.view.width), inside(place.y, stage.view.height)];
  }
  function zoom(by, x, y) {
    const [left, top, width, height] = stage.around, [w, h] = [stage.view.width, stage.view.height];
    const part = Math.min(Math.max(width / by, w / 64), w) / width;
    x = x === undefined ? left + width / 2 : x;
    y = y === undefined ? top + height / 2 : y;
    panTo(x - (x - left) * part, y - (y - top) * part, width * part, height * part, w, h);
  }
  function panTo(x, y, width, height, w = stage.view.width, h = stage.view.height) {
    stage.around = [Math.min(Math.max(x, 0), w - width), Math.min(Math.max(y, 0), h - height), width, height];
    look(stage);
  }
  function zoomed(event) {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...spot(event));
  }

  const current = () => found(viewOf(page.items[at]), picked.id);
  const boxNow = () => (picked.box === null || !current() ? null : current().instances[picked.box].bbox);
  const dragged = (from, to) => [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]),
    Math.max(from[1], to[1])];

  // Which edges of the picked box a point grabs: [x1, y1, x2, y2]; all of them inside it.
  function grabbed([x, y], touch) {
    const box = boxNow(), near = (touch ? 2 : 1) * NEAR / scale();
    if (!box || x < box[0] - near || x > box[2] + near || y < box[1] - near || y > box[3] + near) return null;
    const edges = box.map((edge, n) => Math.abs((n % 2 ? y : x) - edge) <= near);
    if (edges[0] && edges[2]) edges[Math.abs(x - box[0]) < Math.abs(x - box[2]) ? 2 : 0] = false;
    if (edges[1] && edges[3]) edges[Math.abs(y - box[1]) < Math.abs(y - box[3]) ? 3 : 1] = false;
    return edges.some(Boolean) ? edges : [true, true, true, true];
  }
  function down(event) {
    if (event.button > 1) return;
    event.preventDefault();
    stage.svg.focus({ preventScroll: true });
    stage.svg.setPointerCapture(event.pointerId);
    stage.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    stage.pan = pan || event.button === 1 || stage.fingers.size > 1;
    stage.from = spot(event);
    stage.start = [event.clientX, event.clientY];
    stage.edges = stage.pan || points ? null : grabbed(stage.from, event.pointerType === "touch");
    stage.to = null;
  }
  function move(event) {
    const last = stage.fingers.get(event.pointerId);
    if (!last) return;
    const here = [event.clientX, event.clientY], apart = (all) => Math.hypot(all[0][0] - all[1][0],
      all[0][1] - all[1][1]);
    const before = [...stage.fingers.values()];
    stage.fingers.set(event.pointerId, here);
    if (stage.pan) {
      const fingers = [...stage.fingers.values()], [x, y, width, height] = stage.around,
        share = scale() * fingers.length;
      panTo(x - (here[0] - last[0]) / share, y - (here[1] - last[1]) / share, width, height);
      if (fingers.length > 1) zoom(apart(fingers) / Math.max(1, apart(before)));
    } else if (!points && (stage.to || Math.hypot(here[0] - stage.start[0], here[1] - stage.start[1]) > 4)) {
      const to = spot(event), by = [to[0] - stage.from[0], to[1] - stage.from[1]];
      stage.to = stage.edges ? shifted(boxNow(), stage.edges, by) : dragged(stage.from, to);
      put(stage.new, stage.to);
    }
  }
  const put = (rect, [x1, y1, x2, y2]) =>
    Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 }).forEach(([name, n]) => rect.setAttribute(name,
      n));
  // A box with the edges that are grabbed shifted, within the picture, never turned inside out.
  function shifted(box, edges, by) {
    const most = [stage.view.width, stage.view.height], whole = edges.every(Boolean);
    const shift = by.map((n, k) => (whole ? Math.min(Math.max(n, -box[k]), most[k] - box[k + 2]) : n));
    const moved = box.map((edge, n) => (edges[n] ? Math.min(Math.max(edge + shift[n % 2], 0), most[n % 2]) : edge));
    return dragged(moved.slice(0, 2), moved.slice(2));
  }
  function up(event) {
    const { to, edges, pan: panned } = stage;
    stage.fingers.delete(event.pointerId);
    if (panned || event.type === "pointercancel") return;
    if (points) return extreme(stage.from);
    if (to) return edges ? resize(to) : drawBox(to);
    const [x, y] = stage.from, hit = recordPage.boxesOf(stage.view).reverse()
      .filter(({ bbox: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2);
    const last = hit.findIndex(({ e, instance }) => e.id === picked.id && e.instances[picked.box] === instance);
    const next = hit[(last + 1) % hit.length];
    if (next) pick(next.e.id, next.e.instances.indexOf(next.instance), true);
    else pick(picked.id, null, true);
  }
  // Four clicks on a thing's outermost points, in any order.
  function extreme(point) {
    points.push(point);
    stage.dots.append(shape("circle", { cx: point[0], cy: point[1], r: 4 / scale() }));
    if (points.length < 4) return;
    const [xs, ys] = [0, 1].map((k) => points.map((each) => each[k]));
    points = null;
    drawBox([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
  }

  // Decisions: an expression as it is given back, what a change makes of a view, and their way to the server.
  const given = (e, more = {}) => ({ status: e.status, verified: e.verified === undefined ? null : e.verified,
    instances: e.instances.map((i, n) => ({ from: "from" in i ? i.from : n, bbox: i.bbox, verified: i.verified })),
      ...more });
  function applied(view, changes) {
    const next = structuredClone(view);
    for (const { id, after } of changes) {
      const place = next.expressions.findIndex((e) => e.id === id), old = next.expressions[place];
      const blank = { id, text: "", reasons: [], check: "", span: null, instances: [], meaning: "" };
      const e = after && { ...(old || blank), ...after, reviewed_by: "you", instances: after.instances.map(({ from,
        bbox, verified }) =>
        ({ evidence: "person", score: null, ...(from === null ? {} : (old || blank).instances[from]), bbox,
          verified })) };
      if (e && "char_span" in after) e.span = after.char_span && after.char_span.map((n) => points16(view.caption, n));
      if (e && e.instances.length) e.verified = e.instances.every((i) => i.verified === true);
      if (e && !e.verified && !e.instances.some((i) => i.verified === false)
        && e.instances.length) e.reviewed_by = null;
      next.expressions.splice(place < 0 ? next.expressions.length : place, place < 0 ? 0 : 1, ...(e ? [e] : []));
    }
    let colors = 0;
    next.expressions.forEach((e, n) => Object.assign(e, { index: n, color: e.instances.length ? colors++ % 7 : null }));
    return next;
  }
  function commit(action, view, changes, more = {}) {
    const uid = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`, now = performance.now();
    const item = page.items[at], queue = (item && item.why) || "";
    waiting.push({ uid, record: view.key, action, queue, changes, seconds: (now - shown) / 1000,
      ...(local ? { who: window.reviewData.who, when: new Date().toISOString() } : {}), ...more });
    if (!more.seconds) shown = now;
    done.push({ uid, place: view.place, before: view, id: (changes[0] || {}).id });
    if (!more.undoes) undone.length = 0;
    views.set(view.place, applied(view, changes));
    flush();
    count();
    return uid;
  }
  const sent = async () => { while (sending || waiting.length) await new Promise((ready) => setTimeout(ready, 5)); };
  async function flush() {
    if (sending) return;
    sending = true;
    while (waiting.length) {
      const some = waiting.slice(0, 60), records = some.map((d) => d.record);
      // A second change of one record waits for the first one's answer, and with it for its version.
      const batch = some.filter((d, n) => records.indexOf(d.record) === n);
      for (const d of batch) for (const c of d.changes) c.version = c.fresh ? "" : versions.get(`${d.record} ${c.id}`)
        || "";
      try {
        const answers = await send(batch);
        batch.forEach((d) => waiting.splice(waiting.indexOf(d), 1));
        answers.forEach((said, n) => taken(said, batch[n]));
      } catch (error) {
        tell("The server doesn't answer. What you decide is kept in this page and sent when it does.");
        byId("download").hidden = false;
        await new Promise((ready) => setTimeout(ready, 1500));
        continue;
      }
    }
    byId("download").hidden = !local;
    sending = false;
    count();
  }
  // What the server says stands. Where it refused, later decisions on that record were made on what isn't so.
  function taken({ error, view }, decision) {
    if (error) {
      for (const d of waiting.filter((d) => d.record === decision.record)) waiting.splice(waiting.indexOf(d), 1);
      tell(`Not taken: ${error}. Look again: this is how it stands now.`);
      done.length = 0;
    }
    if (!view) return;
    page.left = Math.max(0, page.left - (error ? 0 : (decision.items || []).length));
    view.expressions.forEach((e) => versions.set(`${view.key} ${e.id}`, e.version));
    if (waiting.some((d) => d.record === view.key)) return;
    const old = views.get(view.place), added = picked.id && !found(view, picked.id) && old && found(old, picked.id);
    if (added) picked.id = (view.expressions.find((e) => !found(old, e.id) && e.text === added.text)
      || { id: null }).id;
    views.set(view.place, view);
    if (wanted().mode === "single" && page.items[at] && viewOf(page.items[at]) === view && !stage.fingers.size
      && !points
      && document.activeElement.localName !== "textarea" && getSelection().isCollapsed) drawSingle();
  }
  function undo(from = done, to = undone) {
    const last = from.pop();
    if (!last) return;
    const now = views.get(last.place), place = page.items.findIndex((item) => item.record === last.place);
    const uid = commit("undo", now, [], { undoes: last.uid });
    done.pop();
    to.push({ uid, place: last.place, before: now, id: last.id });
    views.set(last.place, last.before);
    if (wanted().mode === "grid" || place < 0) return sent().then(() => load(0));
    at = page.items.findIndex((item) => item.record === last.place && item.id === last.id);
    if (at < 0) at = place;
    pick(last.id, null, true);
  }

  // What keys and buttons do to what is picked in a single record.
  const change = (action, e, more, items) => {
    commit(action, viewOf(page.items[at]), [{ id: e.id, after: given(e, more) }], items ? { items } : {});
    drawSingle();
  };
  const boxes = (e, edit) => e.instances.map((i, n) => edit({ from: n, bbox: i.bbox, verified: i.verified },
    n)).filter(Boolean);
  function judge(right) {
    const view = viewOf(page.items[at]), item = page.items[at], only = item.why === "sample" && item.id === picked.id
      ? picked.box : null;
    const ones = current() ? [current()] : view.expressions.filter((e) => !e.reviewed_by);
    commit(right ? "accept" : "reject", view, ones.map((e) => ({ id: e.id, after: given(e, { verified: right,
      instances: boxes(e, (i, n) => (only === null || only === n ? { ...i, verified: right } : i)) }) })),
        { items: [item] });
    go(1);
  }
  function resize(bbox) {
    change("move", current(), { instances: boxes(current(), (i, n) => (n === picked.box ? { ...i, bbox,
      verified: true } : i)) });
  }
  function drawBox(bbox) {
    const e = current();
    if (!e) return tell("Pick a phrase first: by its number, or by a click in the list.");
    if (bbox[2] - bbox[0] < 1 || bbox[3] - bbox[1] < 1) return drawSingle();
    const instances = [...boxes(e, (i) => i), { from: null, bbox: bbox.map((n) => Math.round(n * 100) / 100),
      verified: true }];
    picked.box = instances.length - 1;
    change("draw", e, { instances, status: "grounded" });
  }
  function arrow(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!boxNow()) return;
    const edges = event.altKey ? [false, false, true, true] : [true, true, true, true];
    resize(shifted(boxNow(), edges, by.map((n) => n * (event.shiftKey ? 10 : 1))));
  }
  const nothingThere = () => current() && change("absent", current(), { instances: [], status: "none", verified: true },
    [page.items[at]]);
  function remove() {
    const e = current(), view = viewOf(page.items[at]);
    if (!e) return;
    if (picked.box === null) {
      commit("delete", view, [{ id: e.id, after: null }], { items: [page.items[at]] });
      return pick(null, null);
    }
    const left = boxes(e, (i, n) => (n === picked.box ? null : i));
    picked.box = null;
    change("delete", e, { instances: left, status: left.length ? e.status : "none" }, [page.items[at]]);
  }
  // The selection in the caption as a span of code points; what a page spells out is one character of the caption.
  function selection(mayBeEmpty) {
    const chosen = getSelection(), caption = document.querySelector(".caption"), view = viewOf(page.items[at]);
    if (!chosen.rangeCount || !caption || !caption.contains(chosen.anchorNode)
      || !caption.contains(chosen.focusNode)) return null;
    const range = chosen.getRangeAt(0), before = document.createRange();
    before.selectNodeContents(caption);
    before.setEnd(range.startContainer, range.startOffset);
    const ends = [before.toString().length, before.toString().length + range.toString().length],
      letters = chars(view.caption);
    let seen = 0;
    const begins = [...letters.map((c) => (seen += recordPage.pageText(c).length) - recordPage.pageText(c).length),
      seen];
    return trimmed(letters, ends.map((end) => begins.filter((n) => n < end).length), mayBeEmpty);
  }
  function trimmed(letters, [start, end], mayBeEmpty) {
    while (start < end && !letters[start].trim()) start++;
    while (end > start && !letters[end - 1].trim()) end--;
    return start < end || mayBeEmpty ? [start, end] : null;
  }
  const phrase = (view, span) => ({ text: chars(view.caption).slice(...span).join(""), char_span: span });
  const spanOf = (view, e) => e && e.span && e.span.map((n) => codePoints(view.caption, n));
  const freshId = (view) => `new ${view.key} ${Math.random().toString(36).slice(2)}`;
  const blank = (view, span) => ({ id: freshId(view), fresh: true, after: { status: "pending", verified: null,
    instances: [], ...phrase(view, span) } });
  function phrased(way) {
    const view = viewOf(page.items[at]), e = current(), span = selection(way === "split"), own = spanOf(view, e);
    if (way !== "join" && !span) return tell("Select words in the caption first.");
    if (way !== "add" && !e) return tell("Pick a phrase first.");
    tell("");
    let changes = [];
    if (way === "add") changes = [blank(view, span)];
    if (way === "phrase") changes = [{ id: e.id, after: given(e, phrase(view, span)) }];
    if (way === "split") {
      const cut = own && span[0] > own[0] && span[0] < own[1] ? span[0] : null, letters = chars(view.caption);
      if (cut === null) return tell("Put the cursor where the phrase is to be split.");
      const parts = [[own[0], cut], [cut, own[1]]].map((part) => trimmed(letters, part));
      changes = [{ id: e.id, after: given(e, phrase(view, parts[0])) }, blank(view, parts[1])];
    }
    if (way === "join") {
      const placed = view.expressions.filter((o) => o.span).sort((a, b) => a.span[0] - b.span[0]
        || a.span[1] - b.span[1]);
      const next = placed[placed.indexOf(e) + 1], other = spanOf(view, next);
      if (!own || !next) return tell("There is no phrase after this one.");
      const instances = [...boxes(e, (i) => i), ...boxes(next, (i) => ({ ...i, from: null, verified: true }))];
      const both = [Math.min(own[0], other[0]), Math.max(own[1], other[1])];
      changes = [{ id: e.id, after: given(e, { ...phrase(view, both), instances, status: instances.length ? "grounded"
        : e.status }) },
        { id: next.id, after: null }];
    }
    commit(way, view, changes);
    getSelection().removeAllRanges();
    pick(way === "add" ? changes[0].id : e.id, null, true);
  }
  function go(by) {
    do at += by; while (page.items[at] && isDecided(page.items[at]));
    if (page.items[at]) return draw();
    return sent().then(() => load(by > 0 ? page.place : 0));
  }
  function isDecided(item) {
    const e = found(viewOf(item), item.id);
    return !e || Boolean(e.reviewed_by) || (item.box !== null && typeof (e.instances[item.box]
      || {}).verified === "boolean");
  }

  const ACTIONS = {
    a: ["Accept", () => judge(true)], x: ["Reject", () => judge(false)], m: ["Not in the picture", nothingThere],
    f: ["Four points",
      () => {
        points = [];
        stage.dots.replaceChildren();
        tell("Click the outermost points: left, top, right, bottom, in any order.");
      }],
    e: ["Phrase = selection", () => phrased("phrase")], n: ["New phrase", () => phrased("add")],
    s: ["Split", () => phrased("split")], j: ["Join with next", () => phrased("join")], Delete: ["Delete", remove],
    z: ["Undo", () => undo()], y: ["Redo", () => undo(undone, done)],
    "]": ["Next", () => go(1)], "[": ["Previous", () => go(-1)], "+": ["Zoom in", () => zoom(1.25)], "-": ["Zoom out",
      () => zoom(0.8)],
    0: [null, () => panTo(0, 0, stage.view.width, stage.view.height)], Backspace: [null, remove],
    c: [null, () => document.querySelector("textarea").focus()],
    Escape: [null, () => (points = null, pick(picked.box === null ? null : picked.id, null, true))],
    ArrowLeft: [null, arrow], ArrowRight: [null, arrow], ArrowUp: [null, arrow], ArrowDown: [null, arrow],
    " ": [null, () => (pan = true)],
  };
  function numbered(digit) {
    const now = performance.now(), grid = wanted().mode === "grid";
    const most = grid ? 99 : viewOf(page.items[at]).expressions.length;
    typed = now - typing < 800 && Number(typed + digit) <= most ? typed + digit : digit;
    typing = now;
    if (grid && typed.length === 2) {
      if (page.items[Number(typed) - FIRST_CELL]) mark(Number(typed) - FIRST_CELL);
      typed = "";
    } else if (!grid) {
      const e = viewOf(page.items[at]).expressions[Number(typed) - 1];
      if (e) pick(e.id, null);
    }
  }
  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input, select, textarea, dialog"), grid = wanted().mode === "grid";
    const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    if (field && event.key === "Escape") event.target.blur();
    if (field || ((event.ctrlKey || event.metaKey) && !undoes)) return;
    if (event.key === "?") return help();
    if (!page.items.length) return;
    const key = undoes ? (event.shiftKey ? "y" : "z") : event.key === "Z" ? "y" : event.key;
    const run = grid ? { Enter: acceptRest, z: () => undo(), y: () => undo(undone, done) }[key] : (ACTIONS[key]
      || [])[1];
    if (/^[0-9]$/.test(key) && (grid || key !== "0" || (typed && performance.now() - typing < 800))) numbered(key);
    else if (run && !(key === " " && event.target.closest("button"))) run(event);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => (pan = event.key === " " ? false : pan));

  function help() {
    document.querySelector("#keys dl").replaceChildren(...KEYS.flatMap(([key, says]) =>
      [node("dt", null, node("kbd", null, key)), node("dd", null, says)]));
    byId("keys").showModal();
  }
  byId("help").addEventListener("click", help);
  byId("download").addEventListener("click", () => {
    const text = local ? local.text() : waiting.map(({ items,
      ...decision }) => JSON.stringify(decision) + "\n").join("");
    const link = node("a", { href: URL.createObjectURL(new Blob([text])), download: "decisions.jsonl" });
    link.click();
  });
  byId("wanted").addEventListener("submit", (event) => event.preventDefault());
  byId("wanted").addEventListener("change", () => {
    history.replaceState(null, "", `#${new URLSearchParams(wanted())}`);
    sent().then(() => load(0));
  });
  window.addEventListener("beforeunload", (event) => (waiting.length || local ? event.preventDefault() : null));
  window.addEventListener("hashchange", () => { readAddress(); load(0); });
  readAddress();
  load(0);
})();
