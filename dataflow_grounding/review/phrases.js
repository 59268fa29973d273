// Phrases of a review: what the words selected in the caption make of them.
"use strict";

const reviewPhrases = (() => {
  // The selection in the caption as a span of code points, without spaces at its ends; null where nothing is selected
  // in it. `letters` are the caption's characters: what the page spells out of them is one letter all the same.
  function selection(letters, mayBeEmpty) {
    const chosen = getSelection();
    const caption = document.querySelector(".caption");
    const range = chosen.rangeCount ? chosen.getRangeAt(0) : null;
    if (!range || !caption || !caption.contains(range.commonAncestorContainer)) return null;
    const before = document.createRange();
    before.selectNodeContents(caption);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length;
    const end = start + range.toString().length;
    return trimmed(letters, [lettersIn(letters, start), lettersIn(letters, end)], mayBeEmpty);
  }
  // How many letters of the caption are shown as the first `length` characters of the page.
  function lettersIn(letters, length) {
    let count = 0;
    for (let seen = 0; seen < length; count++) seen += recordPage.pageText(letters[count]).length;
    return count;
  }
  function trimmed(letters, [first, last], mayBeEmpty) {
    let start = first;
    let end = last;
    while (start < end && !letters[start].trim()) start++;
    while (end > start && !letters[end - 1].trim()) end--;
    return start < end || mayBeEmpty ? [start, end] : null;
  }

  const textIn = (letters, span) => letters.slice(...span).join("");
  const renamed = ({ id }, letters, span) => ({ id, text: textIn(letters, span), char_span: span });
  const added = (letters, span) => ({ added: textIn(letters, span), char_span: span });
  // The span of an expression in code points.
  const spanOf = (view, e) => e.span && e.span.map((n) => [...view.caption.slice(0, n)].length);

  // The acts that cut expression `e` where the span begins; or why not.
  function split(view, letters, span, e) {
    const own = spanOf(view, e);
    if (!own || span[0] <= own[0] || span[0] >= own[1]) return "Put the cursor where the phrase is to be split.";
    return [renamed(e, letters, trimmed(letters, [own[0], span[0]])), added(letters, trimmed(letters, [span[0], own[1]]))];
  }
  // The acts that join expression `e` with the next one of the caption; or why not.
  function join(view, letters, e) {
    const own = spanOf(view, e);
    const next = nextOf(view, e);
    if (!own || !next) return "There is no phrase after this one.";
    const other = spanOf(view, next);
    const both = [Math.min(own[0], other[0]), Math.max(own[1], other[1])];
    const boxes = next.instances.map(({ bbox }) => ({ id: e.id, new: bbox, of: next.id }));
    return [renamed(e, letters, both), ...boxes, { id: next.id, gone: true }];
  }
  function nextOf(view, e) {
    const placed = view.expressions.filter((other) => other.span)
      .sort((a, b) => a.span[0] - b.span[0] || a.span[1] - b.span[1]);
    return placed[placed.indexOf(e) + 1];
  }

  // The acts that make the selection a phrase ("add"), or that of expression `e` ("phrase"), or split `e` there, or join
  // it with the next one; or why not, as a text.
  return (way, view, e) => {
    const letters = [...view.caption];
    const span = selection(letters, way === "split");
    if (way !== "join" && !span) return "Select words in the caption first.";
    if (way === "add") return [added(letters, span)];
    if (!e) return "Pick a phrase first.";
    if (way === "phrase") return [renamed(e, letters, span)];
    return way === "split" ? split(view, letters, span, e) : join(view, letters, e);
  };
})();
