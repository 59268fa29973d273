// A record on a page: its picture with boxes, its caption in their colours, the list of its phrases; crops of boxes.
// The report and the review share it. A record is what view_of of _record_view.py makes. All that comes from data goes
// through node() and shape(), as text or as an attribute's value: never as HTML.
"use strict";

const recordPage = (() => {
  const MOST_WIDE = 640, MOST_HIGH = 512, LEAST_SIDE = 320; // pixels in which a picture is shown where there is room
  const MOST_LANES = 4; // phrases over the same text whose lines are told apart
  const COLORS = 14; // of the palette
  const MOST_SHAPES = 200; // boxes in a picture; above, one canvas draws them all
  const MOST_TEXT = 2000, MOST_CAPTION = 20000; // UTF-16 units shown of a text: a megabyte takes a browser 15 s
  const NOT_SHOWN = "The picture can't be shown.";
  const TAG_FONT = "600 11px system-ui, sans-serif", MOST_TAG = 24; // UTF-16 units of a class
  const SAID_ALOUD = new Set(["title", "aria-label", "alt"]);

  const tooMany = (text, most) => (text.length > most ? `… (${text.length.toLocaleString("en")} characters)` : "");

  // `value` as a person may see it: characters that break a page are replaced, those that turn the reading direction
  // spelt out; no more than `most` units of it.
  function pageText(value, most = MOST_TEXT) {
    const text = String(value);
    return (text.slice(0, most) + tooMany(text, most))
      .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\p{Cs}]/gu, "\ufffd")
      .replace(/[\u202a-\u202e\u2066-\u2069]/g, (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase()}]`);
  }

  function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      element.setAttribute(name, SAID_ALOUD.has(name) ? pageText(value) : value === true ? "" : value);
    }
    for (const child of children.flat()) {
      if (child instanceof Node) element.append(child);
      else if (child || child === 0) element.append(pageText(child));
    }
    return element;
  }

  const node = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);
  const shape = (name, attributes, ...children) =>
    filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const look = (e) => (e.color === null ? `grey s-${e.status}` : `c${e.color}`);
  const short = (n) => String(Math.round(n * 100) / 100);

  // Score, evidence and bbox of an instance in a line.
  function describe(instance) {
    const score = instance.score === null ? "no score" : `score ${instance.score.toFixed(2)}`;
    const evidence = instance.evidence ? [`evidence: ${instance.evidence}`] : [];
    return [score, ...evidence, `[${instance.bbox.map(short).join(", ")}]`].join(" · ");
  }

  function tooltip(e) {
    if (e.color === null) return `${e.text}: ${e.status} (${e.meaning})`;
    return [e.text, ...e.instances.slice(0, 20).map(describe)].join("\n");
  }

  // The expressions that have a box of the thing that `instance` is a box of, its own one `e` first.
  const phrasesOf = (view, e, instance) =>
    [...new Set([e, ...(instance.same || []).map((index) => view.expressions[index])])];
  const textOf = (phrases) => phrases.map(({ text }) => text).join(", ");
  const isShown = (instance) => instance.shownAs === undefined; // not as another phrase's box of the same thing

  // The boxes to draw, large ones first, so that small ones are on top: {e, phrases, instance, bbox}.
  function boxesOf(view) {
    const boxes = view.expressions.flatMap((e) => (e.color === null ? [] : e.instances.filter(isShown)
      .map((instance) => ({ e, phrases: phrasesOf(view, e, instance), instance, bbox: instance.bbox }))));
    const area = ({ bbox: [x1, y1, x2, y2] }) => Math.abs((x2 - x1) * (y2 - y1));
    return boxes.sort((a, b) => area(b) - area(a));
  }

  const pen = document.createElement("canvas").getContext("2d"); // measures texts
  const numbersOf = (phrases) => phrases.map((e) => e.index + 1).join(", ");
  // What is at a box's corner, and its width: the phrases' numbers and, where `room` CSS pixels hold it, their class.
  function tagOf(phrases, room) {
    const number = numbersOf(phrases);
    const [e] = phrases;
    if (e.class !== undefined) {
      pen.font = TAG_FONT;
      const text = `${number} ${pageText(e.class, MOST_TAG)}`;
      const wide = 10 + pen.measureText(text).width;
      if (wide <= room) return [text, wide];
    }
    return [number, 10 + 7 * number.length];
  }

  // The boxes as SVG in shares of the picture, so that they stay put at any width; `across` is that width at the most,
  // in CSS pixels.
  function shapesOf(view, boxes, across) {
    const tags = []; // corners at which a number is already, in percent, and how wide it is in CSS pixels
    const percent = (n) => `${n.toFixed(3)}%`;
    const groups = boxes.map(({ e, phrases, instance, bbox: [x1, y1, x2, y2] }) => {
      const x = (100 * x1) / view.width;
      const y = (100 * y1) / view.height;
      const scale = across / view.width; // CSS pixels per pixel of the picture, at the most
      const [text, wide] = tagOf(phrases, (x2 - x1) * scale);
      const isRoomy = (x2 - x1) * scale >= wide && (y2 - y1) * scale >= 16; // else a number would hide a small box
      const up = y < 6 ? 0 : -16; // the number is above the box, within it at the picture's upper edge
      // Boxes that begin in the same corner get their numbers side by side.
      const near = tags.filter(([a, b]) => Math.abs(x - a) < 8 && Math.abs(y - b) < 8);
      const taken = near.reduce((sum, [, , other]) => sum + other + 1, 0);
      const left = Math.min(taken, across - (x / 100) * across - wide); // within the picture
      if (isRoomy) tags.push([x, y, wide]);
      const place = {
        x: percent(x),
        y: percent(y),
        width: percent(Math.max(0, (100 * x2) / view.width - x)),
        height: percent(Math.max(0, (100 * y2) / view.height - y)),
      };
      const dashed = instance.evidence === "region" ? " dashed" : "";
      return shape("g", { class: `box link e${e.index} c${e.color}${dashed}`, "data-e": e.index,
        "data-also": phrases.slice(1).map((other) => other.index).join(" ") || null },
        shape("title", null, `${textOf(phrases)}\n${describe(instance)}`),
        shape("rect", { class: "halo", ...place }), shape("rect", { class: "line", ...place }),
        ...(isRoomy ? [shape("svg", { class: "tag", x: place.x, y: place.y, overflow: "visible" },
          shape("rect", { x: left, y: up, width: wide, height: 16 }),
          shape("text", { x: left + wide / 2, y: up + 12 }, text))] : []));
    });
    return shape("svg", { class: "overlay" }, groups);
  }

  // A canvas with `boxes` ({e, phrases, instance, bbox}, the large ones first). `frame()` gives, for each drawing, how
  // far a pixel of the picture goes right and down on it, and left and top of the picture; who moves it calls
  // `canvas.draw()`, and light() `canvas.light(e)`.
  function canvasOf(boxes, frame) {
    const canvas = node("canvas", { class: "overlay", role: "img", "aria-label": `${boxes.length} boxes` });
    let lit = null; // the index of the expression that stands out
    let isWaiting = false; // whether a drawing is asked for already
    function drawNow() {
      isWaiting = false;
      const ratio = window.devicePixelRatio || 1;
      const wide = canvas.clientWidth;
      const high = canvas.clientHeight;
      if (!canvas.isConnected || !wide) return;
      canvas.width = wide * ratio;
      canvas.height = high * ratio;
      const pen = canvas.getContext("2d");
      const [right, down, left, top] = frame();
      const isLit = ({ phrases }) => phrases.some((e) => e.index === lit);
      const style = getComputedStyle(canvas);
      const colors = [...Array(COLORS).keys()]
        .map((n) => ["c", "ink"].map((name) => style.getPropertyValue(`--${name}${n}`)));
      pen.font = TAG_FONT;
      pen.scale(ratio, ratio);
      for (const box of [...boxes].sort((a, b) => isLit(a) - isLit(b))) {
        const [line, ink] = colors[box.e.color];
        const [x1, y1, x2, y2] = box.bbox;
        const number = numbersOf(box.phrases);
        const place = [left + x1 * right, top + y1 * down, (x2 - x1) * right, (y2 - y1) * down];
        pen.globalAlpha = lit === null || isLit(box) ? 1 : 0.15;
        pen.setLineDash(box.instance.evidence === "region" ? [8, 5] : []);
        for (const [color, width] of [[ink, 3], [line, 1.5]]) {
          pen.strokeStyle = color;
          pen.lineWidth = width;
          pen.strokeRect(...place);
        }
        if (!isLit(box) && (place[2] <= 40 || place[3] <= 24)) continue; // a number would hide a small box
        pen.fillStyle = line;
        pen.fillRect(place[0], place[1], 8 + 7 * number.length, 15);
        pen.fillStyle = ink;
        pen.fillText(number, place[0] + 4, place[1] + 11);
      }
    }
    canvas.draw = () => {
      if (!isWaiting) requestAnimationFrame(drawNow);
      isWaiting = true;
    };
    canvas.light = (e) => {
      if (e !== lit) canvas.draw();
      lit = e;
    };
    new ResizeObserver(canvas.draw).observe(canvas);
    return canvas;
  }

  // The boxes over a picture on one canvas, in place of shapesOf(); the one under the pointer lights up.
  function canvasOver(view, boxes) {
    const scale = () => [canvas.clientWidth / view.width, canvas.clientHeight / view.height];
    const canvas = canvasOf(boxes, () => [...scale(), 0, 0]);
    canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      const [right, down] = scale();
      const [hit] = hitsOf(boxes, offsetX / right, offsetY / down);
      canvas.title = hit ? pageText(`${textOf(hit.phrases)}\n${describe(hit.instance)}`) : "";
      light(canvas.closest(".record"), hit ? hit.e.index : null);
    });
    return canvas;
  }

  // The boxes around a point of the picture, small ones first.
  const hitsOf = (boxes, x, y) =>
    boxes.filter(({ bbox: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2).reverse();

  // Replace the small picture by the full one where it has too few pixels for its place; put it back if that fails.
  function sharpened(img, view) {
    img.addEventListener("load", () => { if (img.naturalWidth < 0.9 * img.clientWidth) img.src = view.full; },
      { once: true });
    img.addEventListener("error", () => { img.src = view.thumbnail; }, { once: true });
  }

  // Replace a picture by an empty frame if the browser can't show it.
  function framed(img, { width, height }, size) {
    const gone = () => img.replaceWith(shape("svg", { class: "frame", viewBox: `0 0 ${width} ${height}`, ...size },
      shape("title", null, NOT_SHOWN)));
    img.addEventListener("error", gone, { once: true });
  }

  // The picture with its boxes, or an empty frame, in at most mostWide x mostHigh CSS pixels; null if its size isn't
  // known.
  function pictureOf(view, mostWide = MOST_WIDE, mostHigh = MOST_HIGH) {
    if (!view.width || !view.height) return null;
    const { width, height } = view;
    const enlarged = Math.max(LEAST_SIDE / Math.max(width, height), 1); // of a picture smaller than LEAST_SIDE
    const scale = Math.min(enlarged, mostWide / width, mostHigh / height);
    const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
    const shown = view.thumbnail
      ? node("img", { alt: view.full ? "" : view.id, loading: "lazy", decoding: "async", ...size, src: view.thumbnail })
      : shape("svg", { class: "frame", viewBox: `0 0 ${width} ${height}`, ...size });
    if (view.thumbnail && view.thumbnail === view.full) framed(shown, view, size);
    else if (view.thumbnail && view.full) sharpened(shown, view);
    const boxes = boxesOf(view);
    const overlay = boxes.length > MOST_SHAPES ? canvasOver(view, boxes) : shapesOf(view, boxes, Math.min(size.width, document.documentElement.clientWidth));
    if (!view.full) return node("div", { class: "picture" }, shown, overlay);
    return node("a", { class: "picture", href: view.full, target: "_blank", rel: "noopener",
      "aria-label": `${view.path.split("/").pop()} in full size` }, shown, overlay);
  }

  // A link that opens the picture in full, in a tab of its own.
  const fullLink = (view) => (view.full ? node("a", { class: "full", href: view.full, target: "_blank", rel: "noopener",
    title: "The whole picture, in full size", "aria-label": `${view.path.split("/").pop()} in full size` }, "⤢") : null);

  // The caption cut where a phrase begins or ends, each part marked by the shortest phrase that holds it, nested.
  function captionOf(view) {
    if (!view.caption) {
      const isOfClasses = view.expressions.some((e) => e.class !== undefined);
      return view.kind === "expressions" && !isOfClasses ? node("p", { class: "caption absent" }, "No caption") : null;
    }
    const spans = view.expressions.filter((e) => e.span)
      .sort((a, b) => a.span[1] - a.span[0] - (b.span[1] - b.span[0]) || a.span[0] - b.span[0]);
    // Each phrase, the shortest first, with its lane: how far below the text its line runs. A line runs further down
    // than those of the shorter phrases that it overlaps.
    const lanes = [];
    for (const e of spans) {
      const met = lanes.filter(([other]) => other.span[0] < e.span[1] && e.span[0] < other.span[1]);
      lanes.push([e, Math.max(-1, ...met.map(([, lane]) => lane)) + 1]);
    }
    // A surrogate pair is not cut in two.
    const endsInPair = /[\ud800-\udbff]/.test(view.caption[MOST_CAPTION - 1]);
    const most = endsInPair ? MOST_CAPTION - 1 : MOST_CAPTION;
    const shown = Math.min(view.caption.length, most);
    const cuts = [...new Set([0, shown, ...spans.flatMap((e) => e.span)])].filter((place) => place <= shown)
      .sort((a, b) => a - b);
    const parts = cuts.slice(1).map((end, n) => {
      const around = lanes.filter(([e]) => e.span[0] <= cuts[n] && end <= e.span[1]).slice(0, MOST_LANES);
      return around.reduce((inner, [e, lane], k) => node("span", {
        class: `mark m${e.index} ${look(e)} h${Math.min(lane, MOST_LANES - 1)}${k ? "" : ` link e${e.index}`}`,
        "data-m": e.index, "data-n": e.span[1] === end ? e.index + 1 : null,
        "data-e": k ? null : e.index, title: k ? null : tooltip(e) }, inner),
        new Text(pageText(view.caption.slice(cuts[n], end), Infinity)));
    });
    // What is not text of the caption is no part of a selection in it.
    const caption = node("p", { class: "caption", dir: "auto", "data-more": tooMany(view.caption, most) || null }, parts);
    return [caption, ...view.captions.map((text) => node("p", { class: "other caption", dir: "auto" }, text))];
  }

  const EVIDENCE = {
    seen: "The thing itself was recognized.",
    inferred: "The box is estimated from a part that was recognized, such as a face.",
    region: "A region of that colour or scene; what it is was not checked.",
    person: "A person drew or moved this box.",
  };
  // How many boxes, or why there are none; which phrases have the same things; scores, evidence, and what a check said.
  function detailOf(e) {
    const count = e.instances.length;
    const parts = count ? [`${count} box${count > 1 ? "es" : ""}`] : [];
    if (!count || e.status !== "grounded") parts.push(e.status);
    const others = new Set(e.instances.filter((i) => !isShown(i) && i.shownAs !== e.index).map((i) => i.shownAs + 1));
    if (others.size) parts.push(`same thing as ${[...others].join(", ")}`);
    const scores = e.instances.filter((i) => i.score !== null).map((i) => i.score.toFixed(2));
    if (scores.length) parts.push(`score ${scores.slice(0, 4).join(", ")}${scores.length > 4 ? " …" : ""}`);
    const evidence = [...new Set(e.instances.map((i) => i.evidence).filter(Boolean))].sort();
    parts.push(...evidence.map((name) => node("span", { title: EVIDENCE[name] || null }, name)));
    if (e.disputed) parts.push(node("span", { class: "contradicted" }, "samples disagree"));
    if (e.check) parts.push(node("span", { class: e.check === "not verified" ? "contradicted" : null }, e.check));
    return parts.flatMap((part, n) => (n ? [" · ", part] : [part]));
  }

  function rowOf(e, view) {
    return node("li", { class: `link e${e.index} ${look(e)}`, "data-e": e.index, tabindex: 0, title: tooltip(e) },
      node("span", { class: "badge" }, String(e.index + 1)),
      node("span", { class: "phrase", dir: "auto" }, e.text),
      node("span", { class: "detail" }, view.kind === "expressions" ? detailOf(e) : []),
      e.reasons.map((reason) => node("span", { class: "reason", dir: "auto" }, reason)));
  }

  function listOf(view) {
    if (view.expressions.length) {
      return node("ul", { class: "expressions" }, view.expressions.map((e) => rowOf(e, view)));
    }
    return view.kind === "expressions" && !view.problem ? node("p", { class: "facts" }, "No expressions") : null;
  }

  // Let the boxes, marks and rows of expression `e` stand out in a record; null: all as they are.
  function light(article, e) {
    if (!article || article.lit === e) return;
    article.lit = e;
    article.classList.toggle("lit", e !== null);
    article.querySelectorAll(".on").forEach((other) => other.classList.remove("on"));
    if (e !== null) {
      article.querySelectorAll(`[data-e="${e}"], [data-m="${e}"], [data-also~="${e}"]`)
        .forEach((other) => other.classList.add("on"));
    }
    article.querySelector("canvas.overlay")?.light(e);
  }

  // The same for what was drawn since.
  function relight(article) {
    const { lit } = article;
    article.lit = undefined;
    if (lit !== undefined) light(article, lit);
  }

  function lightsUp(article) {
    const follow = (event) => {
      const link = event.target.closest("[data-e]");
      if (event.target.localName !== "canvas") light(article, link ? Number(link.dataset.e) : null);
    };
    article.addEventListener("pointerover", follow);
    article.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && follow(event));
    for (const end of ["pointerleave", "focusout"]) article.addEventListener(end, () => light(article, null));
    return article;
  }

  // The part of a picture around a box, with the box on it, `side` CSS pixels wide and high; or why it isn't there. It
  // is drawn from the thumbnail or, where that has too few pixels, from the full picture.
  function cropOf(view, instance, color, side = 160) {
    const frame = node("div", { class: `crop c${color}` });
    frame.style.width = frame.style.height = `${side}px`;
    const gone = (why) => {
      frame.replaceChildren(node("span", { class: "missing" }, why));
      return frame;
    };
    if (view.missing || !view.width || !view.height) return gone(view.missing);
    const [x1, y1, x2, y2] = instance.bbox;
    const most = Math.max(view.width, view.height);
    const part = Math.max(1.3 * Math.max(x2 - x1, y2 - y1), most / 40, 8); // of the picture, in its pixels
    // Where the part begins: around the box's middle, but within the picture, or around the picture's if it is larger.
    const inside = (middle, whole) =>
      part < whole ? Math.min(Math.max(middle - part / 2, 0), whole - part) : (whole - part) / 2;
    const x = inside((x1 + x2) / 2, view.width);
    const y = inside((y1 + y2) / 2, view.height);
    const scale = side / part;
    const few = (part / most) * MOST_WIDE < side / 2; // pixels that the thumbnail has of it
    const put = (element, left, top, width, height) =>
      Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    const source = few && view.full ? view.full : view.thumbnail;
    if (source) {
      const img = node("img", { alt: "", loading: "lazy", decoding: "async", src: source });
      img.addEventListener("error", () => gone(NOT_SHOWN));
      put(img, -x * scale, -y * scale, view.width * scale, view.height * scale);
      frame.append(img);
    }
    const line = node("i", { class: instance.evidence === "region" ? "line dashed" : "line" });
    put(line, (x1 - x) * scale, (y1 - y) * scale, (x2 - x1) * scale, (y2 - y1) * scale);
    frame.append(line);
    return frame;
  }

  return { COLORS, MOST_SHAPES, NOT_SHOWN, pageText, node, shape, describe, phrasesOf, textOf, isShown, boxesOf, canvasOf, hitsOf, pictureOf,
    fullLink, captionOf, rowOf, listOf, lightsUp, relight, cropOf };
})();
