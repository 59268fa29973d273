// The page of a review within a notebook's cell: in a frame that may run scripts and nothing else. What its scripts ask
// a server for is passed on to the kernel, and the answers back.

// Runs in the frame, before the page's own scripts.
function inFrame() {
  const asked = [];
  window.fetch = (path, post) => new Promise((answer) => {
    parent.postMessage({ id: asked.push(answer) - 1, path, body: (post && post.body) || "" }, "*");
  });
  window.addEventListener("message", ({ data, source }) => {
    if (source === parent) asked[data.id]({ ok: !data.said.error, json: async () => data.said });
  });
  history.replaceState = () => {}; // a frame of this kind has no address to keep filters in
}

export default {
  render({ model, el }) {
    const frame = document.createElement("iframe");
    const heard = (event) => { if (event.source === frame.contentWindow) model.send(event.data); };
    const answered = (answer) => frame.contentWindow && frame.contentWindow.postMessage(answer, "*");
    frame.setAttribute("sandbox", "allow-scripts allow-forms");
    frame.title = "Review";
    frame.style.cssText = "width: 100%; height: 720px; border: 0";
    frame.srcdoc = model.get("page").replace("<!-- in frame -->", () => `<script>(${inFrame})()</script>`);
    window.addEventListener("message", heard);
    model.on("msg:custom", answered);
    el.append(frame);
    return () => {
      window.removeEventListener("message", heard);
      model.off("msg:custom", answered);
    };
  },
};
