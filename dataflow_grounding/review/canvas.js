// Boxes on one canvas, for more of them than a browser bears as elements.
"use strict";

// A canvas with `boxes` ({e, instance, bbox}, the large ones first). `frame()` gives, for each drawing, what tells a
// box's left, top, width and height on it; who moves it calls `canvas.draw()`, and light() `canvas.light(e)`.
function canvasOf(boxes, frame) {
  const canvas = recordPage.node("canvas", { class: "overlay", role: "img", "aria-label": `${boxes.length} boxes` });
  let lit = null, isWaiting = false;
  function drawNow() {
    isWaiting = false;
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
    if (!canvas.isConnected || !wide) return;
    [canvas.width, canvas.height] = [wide * ratio, high * ratio];
    const pen = canvas.getContext("2d"), placeOf = frame(), isLit = ({ e }) => e.index === lit;
    const style = getComputedStyle(canvas), colors = [...Array(recordPage.COLORS).keys()]
      .map((n) => ["c", "ink"].map((name) => style.getPropertyValue(`--${name}${n}`)));
    pen.font = "600 11px system-ui, sans-serif";
    pen.scale(ratio, ratio);
    for (const box of [...boxes].sort((a, b) => isLit(a) - isLit(b))) {
      const [line, ink] = colors[box.e.color], place = placeOf(box.bbox), number = String(box.e.index + 1);
      pen.globalAlpha = lit === null || isLit(box) ? 1 : 0.15;
      pen.setLineDash(box.instance.evidence === "region" ? [8, 5] : []);
      for (const [color, width] of [[ink, 3], [line, 1.5]]) {
        pen.strokeStyle = color;
        pen.lineWidth = width;
        pen.strokeRect(...place);
      }
      if (!isLit(box) && (place[2] <= 40 || place[3] <= 24)) continue;
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
