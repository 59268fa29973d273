// Phrases of a review: what the words selected in the caption make of them.
"use strict";

const reviewPhrases = (() => {
  const { boxes, given } = reviewDecisions;

  // The selection in the caption as a span of code points; what a page spells out is one character of the caption.
  function selection(letters, mayBeEmpty) {
    const chosen = getSelection(), caption = document.querySelector(".caption"), before = document.createRange();
    const range = chosen.rangeCount && chosen.getRangeAt(0);
    if (!range || !caption || !caption.contains(range.commonAncestorContainer)) return null;
    before.selectNodeContents(caption);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length, ends = [start, start + range.toString().length].map((end) => {
      let n = 0;
      for (let seen = 0; seen < end; n++) seen += recordPage.pageText(letters[n]).length;
      return n;
    });
    return trimmed(letters, ends, mayBeEmpty);
  }
  function trimmed(letters, [start, end], mayBeEmpty) {
    while (start < end && !letters[start].trim()) start++;
    while (end > start && !letters[end - 1].trim()) end--;
    return start < end || mayBeEmpty ? [start, end] : null;
  }

  // The changes that make the selection a phrase ("add"), or that of expression `e` ("phrase"), or split `e` there, or
  // join it with the next one; or why not, as a text.
  return (way, view, e) => {
    const letters = [...view.caption], span = selection(letters, way === "split");
    const spanOf = (one) => one.span && one.span.map((n) => [...view.caption.slice(0, n)].length);
    const phrase = (part) => ({ text: letters.slice(...part).join(""), char_span: part });
    const fresh = (part) => ({ id: `new ${view.key} ${Math.random().toString(36).slice(2)}`, fresh: true,
      after: { status: "pending", verified: null, instances: [], ...phrase(part) } });
    if (way !== "join" && !span) return "Select words in the caption first.";
    if (way === "add") return [fresh(span)];
    if (!e) return "Pick a phrase first.";
    if (way === "phrase") return [{ id: e.id, after: given(e, phrase(span)) }];
    const own = spanOf(e);
    if (way === "split") {
      if (!own || span[0] <= own[0] || span[0] >= own[1]) return "Put the cursor where the phrase is to be split.";
      const [first, second] = [[own[0], span[0]], [span[0], own[1]]].map((part) => trimmed(letters, part));
      return [{ id: e.id, after: given(e, phrase(first)) }, fresh(second)];
    }
    const placed = view.expressions.filter((one) => one.span)
      .sort((a, b) => a.span[0] - b.span[0] || a.span[1] - b.span[1]);
    const next = placed[placed.indexOf(e) + 1];
    if (!own || !next) return "There is no phrase after this one.";
    const both = [0, 1].map((k) => (k ? Math.max : Math.min)(own[k], spanOf(next)[k]));
    // As they were; of a phrase whose id this page alone knows, which names none elsewhere, as drawn anew.
    const { id, isOwn } = next, of = (box) => !isOwn && { of: { id, box } };
    const others = boxes(next).map((i, box) => ({ ...i, from: null, ...of(box) }));
    if (isOwn && next.instances.some((i) => i.evidence !== "person" || i.verified !== true)) {
      return "The next phrase is new here, with boxes that weren't drawn or are wrong: undo these, and join it then.";
    }
    const instances = [...boxes(e), ...others];
    const status = instances.length ? "grounded" : e.status;
    return [{ id: e.id, after: given(e, { ...phrase(both), instances, status }) }, { id, after: null }];
  };
})();
