// The page's client-side behaviour.
window.llava = {
  toggle(what) {
    if (what === "camera") return void llava.showCamera(!llava.isOpen("camera"));
    if (what !== "dark") {
      document.body.classList.toggle(`with-${what}`);
      sessionStorage.setItem(`llava-${what}`, llava.isOpen(what) ? "1" : "");
      return void llava.nameButtons();
    }
    const dark = !document.body.classList.contains("dark");
    llava.setDark(dark);
    localStorage.setItem("llava-dark", dark ? "1" : "0");
  },

  isOpen: (what) => document.body.classList.contains(`with-${what}`),

  async showCamera(show) {
    const video = document.querySelector("#camera video");
    const status = document.querySelector("#camera p");
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    status.textContent = "";
    document.body.classList.toggle("with-camera", show);
    llava.nameButtons();
    document.body.classList.remove("with-video");
    if (!show) return;
    if (!navigator.mediaDevices) {
      status.textContent = "Browsers allow camera access only over https or on localhost.";
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      if (!llava.isOpen("camera")) return void stream.getTracks().forEach((track) => track.stop());
      video.srcObject = stream;
      await video.play();
      document.body.classList.add("with-video");
    } catch (error) {
      status.textContent = `The camera is not available: ${error.message}`;
    }
  },

  async takePhoto() {
    const video = document.querySelector("#camera video");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    llava.add([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
    llava.showCamera(false);
  },

  setDark(dark) {
    document.body.classList.toggle("dark", dark);
    document.documentElement.classList.toggle("dark", dark);
    llava.nameButtons();
  },

  nameButtons() {
    const set = (id, name, value) => {
      const button = document.querySelector(id);
      if (button && button.getAttribute(name) !== String(value)) button.setAttribute(name, String(value));
    };
    set("#side-button", "aria-expanded", llava.isOpen("side"));
    set("#side-button", "aria-controls", "side");
    set("#photo", "aria-expanded", llava.isOpen("camera"));
    set("#photo", "aria-controls", "camera");
    set("#dark-button", "aria-pressed", document.body.classList.contains("dark"));
  },

  // The tab's state survives a reload, also the one after a server restart. It is in sessionStorage, so no other tab
  // sees it.
  keep(messages) {
    if (!llava.hasBegun) return; // the page is still loading, and the chat empty
    llava.latest = messages ?? [];
    // A new question scrolls to its answer, wherever the user had scrolled to.
    const isAsked = llava.latest.at(-1)?.role === "user";
    if (isAsked && !llava.wasAsked) setTimeout(() => llava.scrollDown(), 100);
    llava.wasAsked = isAsked;
    llava.keepTimer ??= setTimeout(llava.keepNow, 250); // an answer grows many times a second
  },

  scrollDown() {
    const log = document.querySelector("#chat [role=log]");
    log?.scrollTo({ top: log.scrollHeight, behavior: "smooth" });
  },

  keepNow() {
    clearTimeout(llava.keepTimer);
    llava.keepTimer = null;
    if (!llava.latest) return;
    const kept = llava.latest.map(({ role, content, metadata }) => ({
      role,
      metadata: { id: metadata?.id ?? "" },
      content: content.map((part) => (part.type === "text" ? { ...part, text: llava.readText(part.text) } : part)),
    }));
    llava.store("llava-chat", kept);
    llava.keepImages(kept.flatMap(({ content }) => content.map((part) => part.file)));
  },

  keepDraft(box) {
    if (!llava.hasBegun) return;
    llava.draftFiles = box?.files ?? [];
    llava.storeDraft(box?.text ?? "");
    llava.keepImages(llava.draftFiles);
  },

  storeDraft: (text) => llava.store("llava-draft", { text, files: (llava.draftFiles ?? []).map((file) => file.path) }),

  keepSettings: (settings) => void (llava.hasBegun && llava.store("llava-settings", settings)),

  store(name, value) {
    try {
      sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      sessionStorage.removeItem(name); // over the browser's quota: no state is better than a stale one
    }
  },

  async recall() {
    await watch.look();
    // Without the server's id, a restart would go unnoticed, and the images that it has lost would not be sent again.
    for (let tries = 20; watch.isAway && !llava.server && tries; tries--) {
      await llava.pause(watch.wait_ms);
      await watch.look();
    }
    const [chat, draft, settings] = ["chat", "draft", "settings"].map((name) => sessionStorage.getItem(`llava-${name}`));
    const known = sessionStorage.getItem("llava-server");
    if (known === null || !llava.server || known === llava.server) return [chat ?? "[]", draft ?? "", settings ?? ""];
    try {
      return [(await llava.move(chat)) ?? "[]", (await llava.move(draft)) ?? "", settings ?? ""];
    } catch {
      return ["[]", "", ""]; // not what was stored here
    }
  },

  // The saved state with its images uploaded again, because a restarted server has none of them.
  async move(kept) {
    if (kept === null) return null;
    const paths = new Set();
    JSON.stringify(JSON.parse(kept), (name, value) => {
      if (name === "path") paths.add(value);
      if (name === "files" && Array.isArray(value)) value.forEach((path) => paths.add(path));
      return value;
    });
    const moved = new Map();
    for (const path of paths) {
      const copy = await images.get(path);
      const now = copy && (await llava.upload(copy));
      if (now) moved.set(path, now);
    }
    return JSON.stringify(JSON.parse(kept), (_, value) => moved.get(value) ?? value);
  },

  // The state has been restored; from now on changes are saved.
  begin(messages, box) {
    llava.hasBegun = true;
    if (llava.server) sessionStorage.setItem("llava-server", llava.server);
    llava.keep(messages);
    llava.keepDraft(box);
    images.prune();
  },

  async keepImages(files) {
    for (const file of files) {
      if (!file?.url || llava.keptImages.has(file.path)) continue;
      llava.keptImages.add(file.path);
      try {
        const response = await fetch(file.url);
        if (response.ok) await images.put(file.path, file.orig_name ?? "image", await response.blob());
      } catch {
        llava.keptImages.delete(file.path);
      }
    }
  },
  keptImages: new Set(),

  // A server that has just started may be too busy at first.
  async upload({ name, blob }) {
    for (let tries = 5; tries; tries--) {
      const form = new FormData();
      form.append("files", blob, name);
      try {
        const response = await fetch(watch.route("upload"), { method: "POST", body: form });
        if (response.ok) return (await response.json())[0];
        if (![429, 502, 503, 504].includes(response.status)) return null;
      } catch {
        // the connection was lost
      }
      await llava.pause(watch.wait_ms);
    }
    return null;
  },

  pause: (ms) => new Promise((done) => setTimeout(done, ms)),

  // A message's source text from its HTML, and a question's HTML from its text, as in message_html.py.
  readText(shown) {
    if (!shown?.startsWith("<div class=\"")) return shown;
    if (llava.texts.size > 1000) llava.texts.clear();
    if (!llava.texts.has(shown)) {
      const part = new DOMParser().parseFromString(shown, "text/html").body.firstElementChild;
      llava.texts.set(shown, part.matches(".answer") ? part.getAttribute("content") : part.textContent);
    }
    return llava.texts.get(shown);
  },
  texts: new Map(),

  showTyped(text) {
    const part = document.createElement("div");
    part.textContent = text;
    return `<div class="typed" dir="auto">${part.innerHTML.replaceAll('"', "&quot;")}</div>`;
  },

  hint(text) {
    const hint = document.querySelector("#hint p");
    if (!hint) return;
    hint.textContent = text;
    clearTimeout(llava.hintTimer);
    llava.hintTimer = setTimeout(() => (hint.textContent = ""), 12000);
  },

  // Adds files to the question through its own upload field, wherever on the page they were dropped or pasted.
  add(files) {
    const field = document.querySelector("#box input[type=file]");
    const taken = llava.takeImages(files);
    if (!field || !taken.length) return false;
    const chosen = new DataTransfer();
    taken.forEach((file) => chosen.items.add(file));
    field.files = chosen.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  },

  // The images among the files; a hint names the others.
  takeImages(files) {
    const others = [...files].filter((file) => !file.type.startsWith("image/"));
    if (others.length) {
      const names = others.map((file) => file.name).join(", ");
      llava.hint(`Not an image: ${names}. Accepted formats are PNG, JPEG, WebP, GIF and BMP.`);
    }
    return [...files].filter((file) => file.type.startsWith("image/"));
  },
};

// Copies of the images that this browser uploaded, for a restarted server. They are kept for a day, as on the server.
const images = {
  stay_ms: 24 * 3600 * 1000,

  async do(mode, work) {
    images.base ??= new Promise((done, fail) => {
      const opening = indexedDB.open("llava", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("images");
      opening.onsuccess = () => done(opening.result);
      opening.onerror = () => fail(opening.error);
    });
    try {
      const transaction = (await images.base).transaction("images", mode);
      const request = work(transaction.objectStore("images"));
      return await new Promise((done, fail) => {
        transaction.oncomplete = () => done(request.result);
        transaction.onabort = () => fail(transaction.error);
      });
    } catch {
      return undefined; // private windows and full disks keep none
    }
  },

  get: (path) => images.do("readonly", (store) => store.get(path)),
  put: (path, name, blob) => images.do("readwrite", (store) => store.put({ name, blob, at: Date.now() }, path)),

  async prune() {
    await images.do("readwrite", (store) => {
      const request = store.openCursor();
      request.onsuccess = () => {
        const cursor = request.result;
        if (cursor?.value.at < Date.now() - images.stay_ms) cursor.delete();
        cursor?.continue();
      };
      return request;
    });
  },
};

// Watches whether the server is reachable. While it is not, nothing is sent; after a restart the page is reloaded with
// its state.
const watch = {
  look_ms: 4000,
  wait_ms: 1500,
  typed_at: 0,

  async look() {
    clearTimeout(watch.timer);
    const server = await watch.ask();
    if (server === "away" && !watch.isAway && (await watch.ask()) !== "away") return watch.look();
    llava.server ??= /^\d+$/.test(server) ? server : undefined;
    if (/^\d+$/.test(server) && (server !== llava.server || watch.isAway)) {
      if (server === llava.server) watch.say("");
      else if (Date.now() - watch.typed_at > watch.wait_ms) return void location.reload();
    } else if (server === "away" || server === "starting") {
      const what = server === "away" ? "The server cannot be reached." : "The server is starting.";
      const torn = document.querySelector("#chat .answer.open") ? " The answer was interrupted." : "";
      watch.say(`${what}${torn} Your chat and draft are kept; this page reconnects automatically.`);
    }
    watch.timer = setTimeout(watch.look, watch.isAway ? watch.wait_ms : watch.look_ms);
  },

  route: (name) => `${window.gradio_config?.root?.replace(/\/$/, "") ?? ""}/gradio_api/${name}`,

  // The server process, as the id that Gradio gave it.
  async ask() {
    try {
      const options = { cache: "no-store", signal: AbortSignal.timeout(15000) };
      const response = await fetch(watch.route("app_id"), options);
      if (response.ok) return (await response.text()).match(/\d+/)?.[0] ?? "unknown";
      return { 502: "away", 503: "starting", 504: "away" }[response.status] ?? "unknown"; // a proxy's, and the server's own
    } catch {
      return "away";
    }
  },

  say(text) {
    watch.isAway = text !== "";
    document.body.classList.toggle("with-away", watch.isAway);
    const shown = document.querySelector("#away p");
    if (shown && shown.textContent !== text) shown.textContent = text;
  },

  // Blocks sending while the server is unreachable.
  hold(event) {
    if (!watch.isAway) return;
    const isSent =
      event.type === "keydown"
        ? event.key === "Enter" && !event.shiftKey && event.target.matches?.("#box textarea")
        : event.target.closest?.("#new, #box .submit-button, #chat .example, #chat .message-buttons button");
    if (!isSent || event.target.closest?.("[aria-label^=Cop]")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const banner = document.querySelector("#away");
    banner.classList.remove("again");
    requestAnimationFrame(() => banner.classList.add("again"));
  },
};

// Accessibility that Gradio lacks (labels, keyboard), and support for messages that are HTML.
const dress = {
  run() {
    llava.nameButtons(); // Gradio may draw them last, or anew
    document.querySelectorAll("#chat [data-testid][aria-label]").forEach((part) => part.removeAttribute("aria-label"));
    document.querySelectorAll("#chat .user img:not([data-named]), #box .thumbnail-item img:not([data-named])").forEach((image) => {
      image.dataset.named = "";
      image.alt = `Image ${decodeURIComponent(image.src.split("/").at(-1))}`;
    });
    document.querySelectorAll("#chat .edit-textarea:not([data-read])").forEach((field) => {
      field.dataset.read = "";
      field.ariaLabel = "Your question";
      field.title = "Ctrl+Enter sends, Escape cancels";
      dress.fill(field, llava.readText(field.value));
      field.scrollIntoView({ block: "nearest" });
      field.focus();
    });
    // Gradio's own error toast is an early sign of a lost connection.
    if (document.querySelector(".toast-body.error:not([data-seen])")) {
      document.querySelectorAll(".toast-body.error").forEach((toast) => (toast.dataset.seen = ""));
      watch.look();
    }
    document.querySelector("#chat .examples[role=list]")?.setAttribute("role", "group"); // of buttons
    document.querySelector("#chat [role=log]")?.setAttribute("aria-busy", String(dress.isAnswering()));
  },

  isAnswering: () => document.querySelector("#box .stop-button") !== null,

  fill(field, text) {
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  },

  press(selector, within = document) {
    const button = within.querySelector(selector);
    button?.click();
    return button !== null;
  },

  // Gradio shows an edited question at once, before the server has rendered it.
  submitEdit(event) {
    if (!event.target.closest?.("#chat [aria-label=Submit]")) return;
    const field = document.querySelector("#chat .edit-textarea");
    if (field) dress.fill(field, llava.showTyped(field.value));
  },

  // Copies a message's source text instead of its HTML.
  copy(event) {
    if (event.target.tagName !== "TEXTAREA" || !event.target.value.startsWith('<div class="')) return;
    event.clipboardData.setData("text/plain", llava.readText(event.target.value));
    event.preventDefault();
  },

  escape(event) {
    if (event.target.closest?.(".edit-textarea")) dress.press("#chat [aria-label=Cancel]");
    else if (llava.isOpen("camera")) llava.showCamera(false);
    else if (!dress.press("#box .stop-button") && llava.isOpen("side")) llava.toggle("side");
  },
};

(() => {
  const outside = (event) => !event.target.closest?.("#box, #camera");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (over) => document.body.classList.toggle("with-drop", over);
  for (const kind of ["dragenter", "dragover"])
    addEventListener(kind, (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault(); // else the browser would navigate to the image
      event.stopPropagation(); // else the box would highlight itself and wait for its own drop
      mark(true);
    }, true);
  addEventListener("dragleave", (event) => event.relatedTarget || mark(false));
  // Runs before the box's own handler, which would accept other files as images or ignore them silently.
  const take = (event, files) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    llava.add(files);
  };
  addEventListener("drop", (event) => {
    mark(false);
    if (hasFiles(event)) take(event, event.dataTransfer.files);
  }, true);
  addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length && (outside(event) || llava.takeImages(files).length < files.length)) take(event, files);
  }, true);
  addEventListener("change", (event) => {
    const field = event.target;
    if (!field.matches?.("#box input[type=file]") || llava.takeImages(field.files).length === field.files.length) return;
    const files = [...field.files];
    field.value = "";
    take(event, files);
  }, true);
  for (const kind of ["click", "keydown"]) addEventListener(kind, watch.hold, true);
  addEventListener("click", dress.submitEdit, true);
  addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") dress.escape(event);
    const isAsked = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (isAsked && event.target.closest?.(".edit-textarea")) dress.press("#chat [aria-label=Submit]");
  });
  addEventListener("click", (event) => {
    if (event.target.closest?.("#snap")) llava.takePhoto();
  });
  addEventListener("input", (event) => {
    if (!event.target.matches?.("#box textarea")) return;
    watch.typed_at = Date.now();
    if (llava.hasBegun) llava.storeDraft(event.target.value);
  });
  addEventListener("pagehide", llava.keepNow);
  addEventListener("copy", dress.copy, true);
  const write = window.Clipboard?.prototype.writeText;
  if (write) Clipboard.prototype.writeText = function (text) { return write.call(this, llava.readText(text)); };
  for (const kind of ["online", "offline", "pageshow", "visibilitychange"]) addEventListener(kind, () => document.hidden || watch.look());

  const chosen = localStorage.getItem("llava-dark");
  const drawn = new MutationObserver(() => {
    if (!document.querySelector("#box textarea")) return;
    drawn.disconnect();
    // Gradio applies the system's theme first; the user's own choice then overrides it.
    if (chosen !== null) llava.setDark(chosen === "1");
    if (sessionStorage.getItem("llava-side")) llava.toggle("side");
    dress.run();
    new MutationObserver(dress.run).observe(document.querySelector(".gradio-container"), {
      subtree: true, childList: true, attributeFilter: ["aria-label"],
    });
  });
  drawn.observe(document.documentElement, { subtree: true, childList: true });
})();
