// What the page does by itself, without asking the server.
window.llava = {
  toggle(what) {
    if (what !== "dark") return void document.body.classList.toggle(`with-${what}`);
    const dark = !document.body.classList.contains("dark");
    llava.setDark(dark);
    localStorage.setItem("llava-dark", dark ? "1" : "0");
  },

  setDark(dark) {
    document.body.classList.toggle("dark", dark);
    document.documentElement.classList.toggle("dark", dark);
  },

  // Files go to the question by its own upload field, from wherever on the page they come.
  add(files) {
    const field = document.querySelector("#box input[type=file]");
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    if (!field || !pictures.length) return false;
    const chosen = new DataTransfer();
    pictures.forEach((file) => chosen.items.add(file));
    field.files = chosen.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  },
};

(() => {
  const outside = (event) => !event.target.closest?.("#box, #camera");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (over) => document.body.classList.toggle("with-drop", over);
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // else the browser would leave the page for the picture
    mark(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || mark(false));
  addEventListener("drop", (event) => {
    mark(false);
    if (hasFiles(event) && outside(event)) {
      event.preventDefault();
      llava.add(event.dataTransfer.files);
    }
  });
  addEventListener("paste", (event) => {
    if (outside(event) && llava.add(event.clipboardData?.files ?? [])) event.preventDefault();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.body.classList.remove("with-camera", "with-side");
  });
  addEventListener("DOMContentLoaded", () => {
    if (matchMedia("(min-width: 1100px)").matches) document.body.classList.add("with-side");
    const chosen = localStorage.getItem("llava-dark");
    // The page decides by the system when it is drawn, which is a little later.
    if (chosen !== null) new MutationObserver(() => {
      if (document.body.classList.contains("dark") !== (chosen === "1") && !llava.settled) llava.setDark(chosen === "1");
      if (document.querySelector("#box")) llava.settled = true;
    }).observe(document.documentElement, { subtree: true, childList: true, attributes: true });
  });
})();
