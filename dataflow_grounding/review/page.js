// The page of a report or a review: which records are asked for, how they are shown, and page by page. The address says
// what is asked for, after "#". A report's data come in files of 500 as scripts, which a page opened from disk may load,
// or in the page itself; those of a review come from its server, and what is judged there is shown by review.js.
"use strict";

const page = (() => {
  const { node, pictureOf, listOf, lightsUp } = recordPage;
  const SIZE = { pictures: 20, grid: 60, phrases: 60, failures: 20 }; // things on a page
  const SIDES = { grid: 200, phrases: 160 }; // CSS pixels of a picture, unless the address says
  const SMALL = 140; // below it there is no room for numbers
  const SIDE_STEP = 40; // of a key
  const LABELS = 100; // those with the most boxes, in the sidebar
  const WITHOUT_BOX = { none: "not found", pending: "not looked for yet" }; // of a status, in words; others say it
  const HEADS = 300; // most frequent ones that are offered
  const nonce = document.currentScript.nonce;
  const about = JSON.parse(document.getElementById("about").textContent);
  const rules = { createScriptURL: (address) => address };
  const policy = window.trustedTypes?.createPolicy("report", rules) || rules;
  const app = document.getElementById("page"), part = (selector) => app.querySelector(selector);
  const main = part(".records"), fields = part(".fields"), help = part("#keys"), sizing = part(".side");
  const kinds = new Map(Object.entries(about.kinds)); // of failures, and how many there are
  const count = (n) => n.toLocaleString("en");
  const boxesIn = (n) => `${count(n)} box${n === 1 ? "" : "es"}`;

  // Data by name, each a list: loaded once, then kept.
  const waiting = new Map(), loads = new Map();
  const taken = (name, data) => waiting.get(name)(data);
  function load(name) {
    if (!loads.has(name)) {
      loads.set(name, new Promise((resolve, reject) => {
        const inline = document.getElementById(name);
        if (inline) return resolve(JSON.parse(inline.textContent));
        waiting.set(name, resolve);
        const script = node("script", { nonce });
        script.onerror = () => reject(new Error(`${about.files}${name}.js`));
        script.src = policy.createScriptURL(`${about.files}${name}.js`);
        document.head.append(script);
      }));
    }
    return loads.get(name);
  }

  // Rows `places` of the data called `name`, in that order.
  const rowsAt = (name, places) => Promise.all(places.map(async (place) =>
    (await load(`${name}-${Math.floor(place / about.perFile) + 1}`))[place % about.perFile]));
  const viewsAt = (places) => (about.review ? reviewDecisions.viewsAt(places) : rowsAt("records", places));

  // The address: what is asked for. `heads` are labels, "" that of phrases without a head noun.
  function asked() {
    const inAddress = new URLSearchParams(location.hash.slice(1));
    return { ...Object.fromEntries(inAddress), head: "", heads: inAddress.getAll("head") };
  }
  function addressOf({ heads = [], ...state }) {
    const said = Object.entries(state).filter(([, value]) => value !== "" && value !== undefined);
    return `#${new URLSearchParams([...said, ...heads.map((head) => ["head", head])])}`;
  }
  const LOOKS = new Set(["view", "page", "side", "order"]); // what a page looks like, not what it is of
  const isFiltered = (state) => state.heads.length > 0
    || Object.entries(state).some(([name, value]) => name !== "heads" && value && !LOOKS.has(name));
  const sideOf = (state) => Number(state.side) || SIDES[state.view] || SIDES.grid;
  const go = (change) => { location.hash = addressOf({ ...asked(), page: "", ...change }); };

  let rows = []; // one of each record, by which it is filtered; `Index.row_of` of _index.py says what is in it
  const isClass = (label) => label >= 0; // else it is of a head noun
  const nameOf = (label) => (isClass(label) ? about.classes[label] : about.heads[-1 - label]);
  const boxesOf = new Map(); // how many boxes each label has, by its name
  // How many boxes of a phrase are shown as its own; `shownAs` are [index of a box, the phrase that it is shown as].
  const ownBoxes = ([, , boxes = 1, shownAs = []]) => boxes - shownAs.length;
  const WITHOUT = new Set(["none", "ambiguous", "unsupported", "pending"]); // statuses of phrases without a box
  const STATUSES = new Set(["grounded", ...WITHOUT]);
  const statusOf = ([, , boxes = 1, , status]) => status || (boxes ? "grounded" : "none");

  // Returns a test of a phrase: whether it is of one of the labels asked for, and has boxes; no boxes, where the status
  // asked for, or the label, has none.
  function isOfLabels({ heads, show }) {
    const wantsBoxes = new Map(heads.map((head) => [head, !WITHOUT.has(show) && boxesOf.get(head) > 0]));
    return ([, label, boxes = 1]) => wantsBoxes.get(nameOf(label)) === boxes > 0;
  }
  const wordsOf = (state) => (state.q || "").toLowerCase().trim();
  // Returns a test of a score in hundredths, -1 for none; null where none is asked for.
  function isOfScores({ low, high }) {
    if (!low && !high) return null;
    return (score) => score >= 0 && (!low || score >= 100 * Number(low)) && (!high || score <= 100 * Number(high));
  }

  // Places of the records that pass all filters, in order.
  function matching(state) {
    const flags = ["show", "size"].map((name) => about.flags.indexOf(state[name])).filter((bit) => bit >= 0);
    const all = flags.reduce((sum, bit) => sum | (1 << bit), 0), words = wordsOf(state);
    const isOfLabel = isOfLabels(state), isOfScore = isOfScores(state);
    const isOfModel = (model) => state.model === undefined || about.models[model] === state.model;
    return [...rows.keys()].filter((place) => {
      const [id, bits, phrases, scores, model, file] = rows[place];
      return (bits & all) === all && isOfModel(model) && [undefined, id].includes(state.record)
        && (!isOfScore || scores.some(isOfScore)) && (!state.heads.length || phrases.some(isOfLabel))
        && (!words || isNamed(words, id, file) || phrases.some(([text]) => text.includes(words)));
    });
  }
  const isNamed = (words, ...names) => names.some((name) => name.toLowerCase().includes(words));

  // What can be judged in the record at a place: {place, e, box, number, score, doubt}; `box` is null for a phrase without
  // one, `number` counts as `items_of` of _index.py. A thing that several phrases have a box of is here once.
  function itemsOf(place) {
    const [, , phrases, scores, , , doubts = []] = rows[place];
    const items = [];
    let boxes = 0;
    phrases.forEach(([, , count = 1, shownAs = []], e) => {
      const others = new Set(shownAs.map(([box]) => box));
      for (let box = count ? 0 : null; box === null || box < count; box++) {
        if (others.has(box)) continue;
        const number = items.length;
        items.push({ place, e, box, number, score: box === null ? -1 : scores[boxes++], doubt: doubts[number] });
        if (box === null) break;
      }
    });
    return items;
  }

  // Of the records at `places` what can be judged of the phrases asked for.
  function itemsAmong(places, state) {
    const words = wordsOf(state), heads = new Set(state.heads), isOfScore = isOfScores(state);
    return places.flatMap((place) => {
      const phrases = rows[place][2], isInPhrase = phrases.some(([text]) => text.includes(words)); // not the id
      const asked = phrases.map((phrase) => (!heads.size || heads.has(nameOf(phrase[1])))
        && (!isInPhrase || phrase[0].includes(words)) && (!STATUSES.has(state.show) || statusOf(phrase) === state.show));
      const things = new Set(); // boxes in whose place those of a phrase asked for are shown
      phrases.forEach(([, , , shownAs = []], e) => {
        if (asked[e]) for (const [, other, box] of shownAs) things.add(`${other} ${box}`);
      });
      return itemsOf(place).filter(({ e, box, score }) => (asked[e] || things.has(`${e} ${box}`))
        && (!isOfScore || isOfScore(score)));
    });
  }

  // Replace the buttons of a filter: "all", with how many there are as a `whole`, and its values with their totals.
  function chips(name, values, whole, state) {
    const legend = part(`.by-${name} legend`);
    legend.parentNode.replaceChildren(legend, ...[["", whole], ...values].flatMap(([value, total], n) => {
      const id = `${name}-${value ? (Object.hasOwn(about.meaning, value) ? value : n - 1) : "all"}`;
      const radio = node("input", { type: "radio", name, id });
      radio.checked = value === (state[name] || "");
      radio.addEventListener("change", () => go({ [name]: value, ...(name === "kind" && { failed: "" }) }));
      return [radio, node("label", { for: id, title: Object.hasOwn(about.meaning, value) && about.meaning[value] },
        node("bdi", null, value || "all"), node("b", null, count(total)))];
    }));
  }

  // What is above the records is filled by the following, or removed where there is nothing to choose from.
  const times = new Map(); // how many records have each flag
  const countOf = (flag) => times.get(flag) || 0;
  let marked = []; // flags but those of sizes that records have, each with how many
  let labels = []; // names of those with the most boxes
  function build() {
    for (const [, bits] of rows) {
      about.flags.forEach((flag, bit) => { if ((bits >> bit) & 1) times.set(flag, countOf(flag) + 1); });
    }
    marked = about.flags.filter((flag) => !["small", "medium", "large"].includes(flag) && countOf(flag))
      .map((flag) => [flag, countOf(flag)]);
    const phrasesOf = new Map(); // how many phrases each label has
    const add = (label, by, boxes) => {
      const name = nameOf(label);
      phrasesOf.set(name, (phrasesOf.get(name) || 0) + by);
      boxesOf.set(name, (boxesOf.get(name) || 0) + boxes);
    };
    for (const [, , phrases] of rows) for (const phrase of phrases) add(phrase[1], 1, ownBoxes(phrase));
    const hasClasses = rows.some(([, , phrases]) => phrases.some(([, label]) => isClass(label)));
    if (hasClasses) about.classes.forEach((_, label) => add(label, 0, 0)); // also those that no record has
    const frequent = [...phrasesOf.keys()]
      .sort((a, b) => boxesOf.get(b) - boxesOf.get(a) || phrasesOf.get(b) - phrasesOf.get(a));
    labels = frequent.slice(0, LABELS);
    const sidebar = part(".labels");
    sidebar.querySelector("summary").append(node("span", null, hasClasses ? "Classes" : "Labels"), node("span", null, "boxes"));
    if (labels.length > 1) sidebar.open = matchMedia("(min-width: 70rem)").matches;
    else sidebar.remove();
    if (hasClasses && frequent.length <= LABELS) fields.elements.head.parentNode.remove();
    if (!rows.some((row) => row[3].some((score) => score >= 0))) part(".scores").remove();
    const offer = (place, values) => place.append(...values.map((value) => node("option", { value }, value)));
    offer(part("#heads"), frequent.slice(0, HEADS));
    for (const [name, values] of [["size", ["small", "medium", "large"].filter(countOf)],
      ["model", [...new Set(rows.map((row) => about.models[row[4]]))]]]) {
      if (values.length > 1) offer(fields.elements[name], values.filter(Boolean));
      else fields.elements[name].parentNode.remove();
    }
    if (!marked.length) part(".by-show").remove();
    if (kinds.size < 2) part(".by-kind")?.remove();
    if (!about.failures) part(".failures")?.remove();
    else {
      part("#failures").append(" ", node("b", null, count(about.failures)));
      part(".failures details").open = !rows.length || Boolean(asked().kind);
    }
    const { q, head, size, low, high, model } = asked();
    const isWanted = [q, head, size, low, high, model].some(Boolean);
    const wide = matchMedia("(min-width: 52rem)"), more = part(".more");
    more.open = wide.matches || isWanted;
    wide.addEventListener("change", () => { more.open = wide.matches; });
    if (!rows.length) app.querySelectorAll(".views, .more").forEach((element) => element.remove());
    fields.addEventListener("submit", (event) => event.preventDefault());
    for (const type of ["input", "change"]) fields.addEventListener(type, ({ target: { name, value } }) => {
      const isAtOnce = name === "q" || name === "side"; // each letter of a phrase; others once they are chosen
      if (isAtOnce !== (type === "input")) return;
      const text = value.trim();
      const change = name === "head" ? { heads: text ? [text] : [] } : { [name]: text };
      replace(name === "side" ? change : { ...change, page: "" });
    });
    fields.addEventListener("change", ({ target }) => { if (about.review) target.blur(); }); // keys are the page's again
    app.hidden = false;
  }

  function replace(change) {
    history.replaceState(null, "", addressOf({ ...asked(), ...change }));
    show().catch(fail);
  }

  // Of `all` the page that the address asks for as `name`: what is on it, how many are before it, and links to the
  // first, the last and the neighbouring pages; none with one page.
  function paged(all, size, name, state) {
    const last = Math.max(1, Math.ceil(all.length / size));
    const page = Math.min(Math.max(1, Number(state[name]) || 1), last), before = (page - 1) * size;
    const near = [...new Set([1, page - 2, page - 1, page, page + 1, page + 2, last])].map((n) => [count(n), n]);
    const links = [["Previous", page - 1], ...near, ["Next", page + 1]].filter(([, n]) => n >= 1 && n <= last);
    for (let place = links.length - 1; place > 0; place--) // where pages are left out
      if (links[place][1] - links[place - 1][1] > 1) links.splice(place, 0, ["…"]);
    const linked = () => links.map(([text, n]) => (!n ? node("span", null, text) : n === page ? node("b", { "aria-current": "page" }, text)
      : node("a", { href: addressOf({ ...state, [name]: n }), rel: text.toLowerCase() }, text)));
    return { here: all.slice(before, before + size), before, page, last, linked: last > 1 ? linked : () => [] };
  }

  async function showFailures(state) {
    const all = [...Array(about.failures).keys()], known = kinds.has(state.kind) && await rowsAt("failures", all);
    const places = known ? all.filter((place) => known[place][4] === state.kind) : all;
    const { here, linked } = paged(places, SIZE.failures, "failed", state), found = await rowsAt("failures", here);
    if (kinds.size > 1) chips("kind", [...kinds], about.failures, state);
    const body = part(".failures tbody");
    body.replaceChildren(body.rows[0], ...found.map((row) =>
      node("tr", null, row.slice(0, 4).map((cell) => node("td", { dir: "auto" }, cell)))));
    part(".failures nav").replaceChildren(...linked());
  }

  // What steps or runs have made of a record, side by side.
  function comparedOf(view) {
    const changes = node("ul", { class: "changes" }, view.changes.map((change) => node("li", null,
      node("b", null, change.version), " ", node("bdi", null, change.text), ": ", change.said)));
    const versions = view.versions.map((version) => {
      const one = { ...view, expressions: version.expressions };
      return lightsUp(node("section", { class: "version record" }, node("h3", null, version.name), pictureOf(one),
        listOf(one)));
    });
    return node("details", { class: "compared" }, node("summary", null, `${count(view.changes.length)} changed`), changes,
      node("div", { class: "versions" }, versions));
  }

  // What was found first; what wasn't is folded, unless there is nothing else.
  function foldedListOf(view) {
    const found = view.expressions.filter((e) => e.instances.length), absent = view.expressions.filter((e) => !e.instances.length);
    if (!absent.length) return listOf(view);
    const times = new Map();
    for (const { status } of absent) times.set(status, (times.get(status) || 0) + 1);
    const words = [...times].map(([status, n]) => `${count(n)} ${WITHOUT_BOX[status] || status}`).join(", ");
    const rest = node("details", { class: "absent" }, node("summary", null, words), listOf({ ...view, expressions: absent }));
    rest.open = !found.length;
    return [found.length ? listOf({ ...view, expressions: found }) : null, rest];
  }

  function cardOf(view, side) {
    const boxes = view.expressions.reduce((sum, e) => sum + e.instances.filter(recordPage.isShown).length, 0);
    const most = [1.15 * side, 0.96 * side]; // CSS pixels
    return lightsUp(node("article", { class: "card record", tabindex: -1 },
      node("figure", null, pictureOf(view, ...most), view.missing && node("p", { class: "missing" }, view.missing)),
      node("a", { class: "facts", href: addressOf({ record: view.id }), title: view.id }, node("bdi", null, view.id),
        node("b", null, boxesIn(boxes)))));
  }

  let focusOn = null; // the label whose box was used by keyboard or pointer, because the list is drawn again
  function showLabels(state) {
    const nav = part(".labels nav");
    if (!nav) return;
    const classes = new Map(about.classes.map((name, n) => [name, n % recordPage.COLORS]));
    const chosen = new Set(state.heads);
    const link = (text, heads, n, isChosen, color) => node("a", { href: addressOf({ ...state, heads, page: "" }),
      "aria-current": isChosen && "true" },
      color !== undefined && node("i", { class: `c${color}` }), node("bdi", null, text), node("b", null, count(n)));
    // The name chooses a label alone; the box before it adds it to those that are chosen, or takes it away.
    const rowOf = (name, n) => {
      const box = node("input", { type: "checkbox", "aria-label": `also ${name || "–"}` });
      box.checked = chosen.has(name);
      box.addEventListener("change", () => {
        const heads = box.checked ? [...state.heads, name] : state.heads.filter((head) => head !== name);
        go({ heads });
        focusOn = name;
      });
      return node("li", { class: n ? null : "zero" }, box, link(name || "–", [name], n, chosen.has(name), classes.get(name)));
    };
    const whole = [...boxesOf.values()].reduce((sum, n) => sum + n, 0);
    const named = [...labels, ...state.heads.filter((head) => !labels.includes(head))]; // one that is rare may be chosen
    const list = node("ul", null, node("li", null, link("all", [], whole, !chosen.size)),
      named.map((name) => rowOf(name, boxesOf.get(name) || 0)));
    const place = nav.scrollTop;
    nav.replaceChildren(list);
    nav.scrollTop = place;
    if (focusOn !== null) list.children[1 + named.indexOf(focusOn)]?.querySelector("input").focus();
    focusOn = null;
  }

  function articleOf(view) {
    const missing = (text) => node("p", { class: "missing" }, text);
    const size = view.width ? `${count(view.width)} × ${count(view.height)} px` : "";
    return lightsUp(node("article", { class: "record", tabindex: -1 },
      node("figure", null, pictureOf(view), view.missing && missing(view.missing)),
      node("div", { class: "text" },
        node("h2", { dir: "auto" }, node("a", { href: addressOf({ record: view.id }) }, view.id)),
        node("p", { class: "facts" }, view.path && node("bdi", null, view.path), view.path && size && " · ", size),
        view.notes.map(missing), view.only && missing(`Only in ${view.only}.`),
        recordPage.captionOf(view), view.problem && missing(view.problem), foldedListOf(view)),
      view.changes && comparedOf(view)));
  }

  function cropOf(view, side, { e, box }) {
    const expression = view.expressions[e], instance = expression.instances[box];
    return node("a", { class: "cell", href: addressOf({ record: view.id }), title: recordPage.describe(instance) },
      recordPage.cropOf(view, instance, expression.color, side),
      node("bdi", null, recordPage.textOf(recordPage.phrasesOf(view, expression, instance))),
      node("small", null, view.id));
  }

  // What a control of the form says; of several labels the sidebar has them all.
  function valueOf(name, state) {
    if (name === "side") return sideOf(state);
    if (name === "head") return state.heads.length === 1 ? state.heads[0] : "";
    return state[name] || "";
  }

  // Show what the address asks for; a later call overtakes an earlier one that still waits for data.
  let calls = 0;
  async function show() {
    const state = asked();
    showFilters(state);
    if (about.review && state.view !== "pictures") return reviewPage.show();
    return showRecords(state);
  }
  function showFilters(state) {
    const ways = about.review ? [["Grid", ""], ["One by one", "single"], ["Pictures", "pictures"]]
      : [["Pictures", ""], ["Grid", "grid"], ["Phrases side by side", "phrases"]];
    part(".views")?.replaceChildren(...ways.map(([text, view]) => node("a", {
      href: addressOf({ ...state, view, page: "" }), "aria-current": view === (state.view || "") && "page" }, text)));
    if (marked.length) chips("show", marked, rows.length, state);
    for (const control of fields.elements) {
      if (control !== document.activeElement) control.value = valueOf(control.name, state);
    }
    sizing.hidden = !["phrases", "grid"].includes(state.view);
    showLabels(state);
  }
  async function showRecords(state) {
    const isAsked = (place) => !state.of || itemsOf(place).some((item) => reviewDecisions.isAsked(state.of, item));
    const call = ++calls, phrases = state.view === "phrases", cards = state.view === "grid";
    const places = matching(state).filter(isAsked);
    const all = phrases ? itemsAmong(places, state).filter(({ box }) => box !== null) : places.map((place) => ({ place }));
    const { here, before, page, last, linked } = paged(all, phrases ? SIZE.phrases : cards ? SIZE.grid : SIZE.pictures, "page", state);
    const side = Math.min(sideOf(state), main.clientWidth || Infinity); // a phone is no wider
    const views = await viewsAt(here.map(({ place }) => place));
    if (call !== calls) return;
    const dashed = views.some((view) => view.expressions.some((e) => e.instances.some((i) => i.evidence === "region")));
    if (!rows.length) part(".note").replaceChildren("No records");
    else part(".note").replaceChildren(`${phrases ? "Boxes" : "Images"} ` +
      `${count(all.length && before + 1)} to ${count(before + here.length)} of ${count(all.length)}`,
      dashed ? ". Dashed: a region of that colour or scene; what it is was not checked." : "",
      isFiltered(state) ? node("a", { href: addressOf({ view: state.view, side: state.side }) }, "Clear filters") : "");
    main.style.setProperty("--side", `${side}px`);
    app.querySelectorAll(".pages.main").forEach((nav) => nav.replaceChildren(...linked()));
    main.className = ["records", phrases && "grid", cards && "cards", side < SMALL && "small"].filter(Boolean).join(" ");
    const shownAs = phrases ? cropOf : cards ? cardOf : articleOf;
    main.replaceChildren(...views.map((view, n) => shownAs(view, side, here[n])));
    if (about.failures) await showFailures(state);
    document.title = document.querySelector("h1").textContent + (last > 1 ? ` · page ${page} of ${last}` : "");
  }

  function step(by) {
    const items = [...main.children], at = items.findIndex((item) => item.contains(document.activeElement));
    items[Math.min(Math.max(at + by, 0), items.length - 1)]?.focus();
  }
  // The pictures of a grid larger or smaller, as far as the slider goes.
  function resize(by) {
    const slider = fields.elements.side;
    if (sizing.hidden) return;
    slider.value = Number(slider.value) + by;
    replace({ side: slider.value });
  }
  const turn = (rel) => part(`.pages.main [rel=${rel}]`)?.click();
  const DOES = { j: () => step(1), k: () => step(-1), ArrowRight: () => turn("next"), ArrowLeft: () => turn("previous"),
    g: () => go({ view: asked().view === "phrases" ? "" : "phrases" }), "/": () => fields.elements.q.focus(),
    "+": () => resize(SIDE_STEP), "-": () => resize(-SIDE_STEP),
    "?": () => help.showModal() };
  document.addEventListener("keydown", (event) => {
    const busy = event.ctrlKey || event.altKey || event.metaKey || help.open || about.review;
    if (busy || !DOES[event.key] || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    DOES[event.key]();
  });

  function fail(error) {
    const why = about.review ? "The server doesn't answer: is `review` still running?"
      : `Can't read ${error.message}. Its folder must be next to this page; a page that needs none comes from: ` +
        "dataflowgrounding report RESULTS --single-file";
    app.hidden = false;
    app.replaceChildren(node("p", { class: "missing", role: "alert" }, why));
  }

  // A comparison of two runs begins with the records in which they differ.
  function chooseFirst() {
    const asksForNothing = !location.hash.slice(1);
    if (asksForNothing && countOf(about.beginsWith)) {
      history.replaceState(null, "", addressOf({ show: about.beginsWith }));
    }
  }

  const take = (all) => { rows = all; };
  const begun = () => (about.review ? reviewDecisions.begin(take) : load("index").then(take));
  document.addEventListener("DOMContentLoaded", () => begun().then(() => {
    build();
    if (about.beginsWith) chooseFirst();
    window.addEventListener("hashchange", () => show().catch(fail));
    return show();
  }).catch(fail));
  return { take: taken, about, asked, addressOf, isFiltered, go, matching, itemsOf, itemsAmong, count, main, part, rows: () => rows, labelOf: ({ place, e }) => nameOf(rows[place][2][e][1]),
    textOf: ({ place, e }) => rows[place][2][e][0] };
})();
