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
  // The page follows the system when it is drawn; what was chosen here comes after that.
  const chosen = localStorage.getItem("llava-dark");
  if (chosen !== null) {
    const drawn = new MutationObserver(() => {
      if (!document.querySelector("#box")) return;
      drawn.disconnect();
      llava.setDark(chosen === "1");
    });
    drawn.observe(document.documentElement, { subtree: true, childList: true });
  }
})();
