// The comment on a record of a review: it is saved where it was typed, before anything else is done.
"use strict";

const reviewComment = (() => {
  let typed = null; // how to save what isn't saved yet

  // A field that has `now()`, and hands what becomes of it to `put`.
  function fieldOf(now, put) {
    const field = recordPage.node("textarea", { rows: 2, "aria-label": "Comment", placeholder: "Comment (c)" });
    const save = () => {
      if (typed === save) typed = null;
      if (field.value !== now()) put(field.value);
    };
    field.value = now();
    field.addEventListener("input", () => { typed = save; });
    field.addEventListener("change", save);
    return field;
  }
  return { fieldOf, save: () => typed && typed() };
})();
