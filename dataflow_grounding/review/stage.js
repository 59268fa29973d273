// The stage of a review: the picture of one record, on which boxes are drawn, moved and resized by mouse or finger. It
// zooms by the part of the picture that its SVG shows. Boxes are [x1, y1, x2, y2] in pixels of the upright picture.
"use strict";

const reviewStage = (() => {
  const { shape } = recordPage;
  const NEAR = 9; // pixels of the screen around an edge that grab it
  const LEAST_DRAG = 4; // pixels of the screen; less is a click
  const LEAST_SHIFT = 8; // the same where the whole box would move, which is often a slip
  const MOST_ZOOM = 64;
  const ALL = [true, true, true, true];
  const within = (n, most) => Math.min(Math.max(n, 0), most);
  const rectOf = ([x1, y1, x2, y2]) => ({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
  const boxAround = (points) => {
    const [xs, ys] = [0, 1].map((k) => points.map((point) => point[k]));
    return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  };

  // Which edges of a box, [x1, y1, x2, y2], a point grabs: those within `near` of it, else, inside the box, all four;
  // null where it is outside.
  function grabbed(box, [x, y], near) {
    if (!box || x < box[0] - near || x > box[2] + near || y < box[1] - near || y > box[3] + near) return null;
    const apart = box.map((edge, n) => Math.abs((n % 2 ? y : x) - edge));
    const edges = apart.map((far, n) => far <= near && (n < 2 ? far <= apart[n + 2] : far < apart[n - 2]));
    return edges.some(Boolean) ? edges : ALL;
  }

  // A box with some of its edges shifted by [right, down]. It gets no further out of the picture of that size than it
  // is; edges that would pass each other change places.
  function shifted(box, edges, by, size) {
    const whole = edges.every(Boolean);
    const moved = box.map((edge, n) => {
      const [low, high] = whole ? [box[n % 2], box[n % 2 + 2]] : [edge, edge];
      const least = Math.min(-low, 0), most = Math.max(size[n % 2] - high, 0);
      return edges[n] ? edge + Math.min(Math.max(by[n % 2], least), most) : edge;
    });
    return boxAround([moved.slice(0, 2), moved.slice(2)]);
  }

  // The stage of record `view`: `all` are the boxes that are seen, `box` is the picked one, null for none. `does` says
  // what becomes of a gesture: draw(bbox), move(bbox, isShifted), where isShifted means dragged as a whole, click([x,
  // y]). The stage begins with the part of the picture that `last` shows, if that is a stage of the same record.
  function stageOf(view, all, box, isPicked, does, last) {
    const size = [view.width || 1, view.height || 1];
    const fingers = new Map(); // where each is on the screen, by pointer
    const sketch = shape("g", { class: "sketch" });
    const isMany = all.length > recordPage.MOST_SHAPES;
    const boxes = all.filter(({ e, instance }) => !isMany || isPicked(e, instance)).map(({ e, instance, bbox }) =>
      shape("g", { class: `box link e${e.index} c${e.color}${isPicked(e, instance) ? " picked" : ""}`,
        "data-e": e.index }, ["halo", "line"].map((name) => shape("rect", { class: name, ...rectOf(bbox) })),
      shape("text", { class: "number", x: bbox[0], y: bbox[1] }, String(e.index + 1))));
    const canvas = isMany && recordPage.canvasOf(all, () => {
      const { a, d, e, f } = svg.getScreenCTM();
      const place = canvas.getBoundingClientRect();
      return [a, d, e - place.x, f - place.y];
    });
    const picture = shape("image",
      { href: view.full || null, width: view.width, height: view.height, preserveAspectRatio: "none" });
    picture.addEventListener("error", () => stage.board.append(recordPage.NOT_SHOWN));
    const svg = shape("svg", { class: "stage", tabindex: 0, role: "img",
      "aria-label": `${view.expressions.length} phrases` }, picture, boxes, sketch);
    const stage = { view, board: recordPage.node("div", { class: "board" }, svg, canvas), hand: false };
    let points = null; // those of four that have been clicked; null where none are asked for
    let panning; // whether the picture is moved, not a box
    let edges; // of the picked box, those that a drag moves; null where it draws
    let from; // where a drag began, in the picture
    let start; // the same on the screen
    let to; // the box that a drag makes

    const scale = () => svg.getScreenCTM().a; // CSS pixels per pixel of the picture
    function spot(event) {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [within(place.x, size[0]), within(place.y, size[1])];
    }
    function show(x, y, width, height) {
      stage.around = [within(x, size[0] - width), within(y, size[1] - height), width, height];
      svg.setAttribute("viewBox", stage.around.join(" "));
      if (canvas) canvas.draw();
      sizeNumbers();
    }
    // Numbers are as large on the screen however far the picture is zoomed.
    function sizeNumbers() {
      if (!svg.isConnected || !svg.clientWidth) return;
      svg.style.setProperty("--px", `${1 / scale()}px`);
      for (const group of boxes) { // a number would hide a box that is smaller
        const line = group.querySelector(".line");
        const sides = ["width", "height"].map((side) => line.getAttribute(side) * scale());
        group.querySelector(".number").style.display = Math.min(...sides) < 14 ? "none" : "";
      }
    }
    new ResizeObserver(sizeNumbers).observe(svg);
    stage.whole = () => show(0, 0, ...size);
    stage.zoom = (by, at) => {
      const [left, top, width, height] = stage.around;
      const [x, y] = at || [left + width / 2, top + height / 2];
      const part = Math.min(Math.max(width / by, size[0] / MOST_ZOOM), size[0]) / width;
      show(x - (x - left) * part, y - (y - top) * part, width * part, height * part);
    };
    stage.nudged = (some, by) => shifted(box, some || ALL, by, size); // the box with edges moved
    // The next four clicks are on a thing's outermost points, in any order.
    stage.fourPoints = () => {
      points = [];
      sketch.replaceChildren();
    };

    const apart = () => {
      const [a, b] = fingers.values();
      return b ? Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1])) : 1;
    };
    const wipe = () => points || sketch.replaceChildren(); // what a drag drew that comes to nothing
    function down(event) {
      if (event.button > 1) return;
      event.preventDefault();
      svg.focus({ preventScroll: true });
      svg.setPointerCapture(event.pointerId);
      from = spot(event);
      start = [event.clientX, event.clientY];
      to = null;
      fingers.set(event.pointerId, start);
      wipe();
      panning = stage.hand || event.button === 1 || fingers.size > 1;
      const near = ((event.pointerType === "touch" ? 2 : 1) * NEAR) / scale();
      const isDrawn = panning || points || event.shiftKey; // with Shift, a box is drawn inside the picked one, too
      edges = isDrawn ? null : grabbed(box, from, near);
    }
    function move(event) {
      const before = fingers.get(event.pointerId);
      const apartBefore = apart();
      const here = [event.clientX, event.clientY];
      if (!before) return;
      fingers.set(event.pointerId, here);
      const least = edges === ALL ? LEAST_SHIFT : LEAST_DRAG;
      const isDrag = to || Math.hypot(here[0] - start[0], here[1] - start[1]) > least;
      if (panning) pan(before, here, apartBefore);
      else if (!points && isDrag) dragTo(spot(event));
    }
    function pan(before, here, apartBefore) {
      const [x, y, width, height] = stage.around;
      const share = scale() * fingers.size;
      show(x - (here[0] - before[0]) / share, y - (here[1] - before[1]) / share, width, height);
      if (fingers.size > 1) stage.zoom(apart() / apartBefore);
    }
    function dragTo(now) {
      to = edges ? shifted(box, edges, [now[0] - from[0], now[1] - from[1]], size) : boxAround([from, now]);
      sketch.replaceChildren(shape("rect", { class: "new", ...rectOf(to) }));
    }
    function up(event) {
      fingers.delete(event.pointerId);
      if (panning || event.type === "pointercancel") return wipe();
      if (points) pointed(from);
      else if (to && edges) does.move(to, edges === ALL);
      else if (to) does.draw(to);
      else does.click(from);
    }
    function pointed([x, y]) {
      points.push([x, y]);
      sketch.append(shape("circle", { cx: x, cy: y, r: 4 / scale() }));
      if (points.length < 4) return;
      const bbox = boxAround(points);
      points = null;
      does.draw(bbox);
    }
    function turned(event) {
      event.preventDefault();
      stage.zoom(event.deltaY < 0 ? 1.25 : 0.8, spot(event));
    }
    const runs = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up, wheel: turned };
    for (const [name, run] of Object.entries(runs)) svg.addEventListener(name, run, { passive: false });
    show(...(last && last.view.place === view.place ? last.around : [0, 0, ...size]));
    return stage;
  }
  return stageOf;
})();
