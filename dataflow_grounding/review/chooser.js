// The chooser of a review: another phrase, or class, for a box, found by typing a part of it.
"use strict";

const reviewChooser = (() => {
  const { node, pageText } = recordPage;
  const dialog = document.getElementById("choose");
  const field = dialog.querySelector("input");
  const list = dialog.querySelector("ul");
  let rows = []; // what fits what was typed, the likeliest first
  let at = 0; // the row that Enter takes
  let take = null; // who is told what was chosen

  const labelOf = (e) => (e.class && e.class !== e.text ? `${e.text} (${e.class})` : e.text);
  // Those of `all` that have what was typed in them; those that begin with it come first.
  function fitting(all) {
    const typed = field.value.trim().toLowerCase();
    const placeOf = (e) => labelOf(e).toLowerCase().indexOf(typed);
    return all.filter((e) => placeOf(e) >= 0).sort((a, b) => Math.sign(placeOf(a)) - Math.sign(placeOf(b)));
  }
  function draw() {
    list.replaceChildren(...rows.map((e, n) => {
      const row = node("li", { role: "option", id: `choice${n}`, "aria-selected": String(n === at), dir: "auto" },
        pageText(labelOf(e)));
      row.addEventListener("click", () => chosen(e));
      return row;
    }));
    field.setAttribute("aria-activedescendant", rows.length ? `choice${at}` : "");
    list.children[at]?.scrollIntoView({ block: "nearest" });
  }
  function chosen(e) {
    dialog.close();
    if (e) take(e);
  }
  function pressed(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && rows.length) at = (at + by + rows.length) % rows.length;
    else if (event.key === "Enter") chosen(rows[at]);
    else return;
    event.preventDefault();
    draw();
  }
  field.addEventListener("keydown", pressed);

  // Ask which of the expressions `others` the boxes of `e` are of; taker(other) is called, unless the dialog is left.
  return (e, others, taker) => {
    take = taker;
    dialog.querySelector("h2").textContent = pageText(`${e.text}: no, it is …`, 80);
    field.value = "";
    const renew = () => {
      rows = fitting(others);
      at = 0;
      draw();
    };
    field.oninput = renew;
    renew();
    dialog.showModal();
    field.focus();
  };
})();
