// What the page does by itself, without asking the server.
window.llava = {
  toggle(what) {
    if (what === "camera") return void llava.showCamera(!llava.isOpen("camera"));
    if (what !== "dark") return void document.body.classList.toggle(`with-${what}`);
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
    document.body.classList.remove("with-video");
    if (!show) return;
    if (!navigator.mediaDevices) {
      status.textContent = "Browsers let a page use the camera only over https or on this machine itself.";
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      if (!llava.isOpen("camera")) return void stream.getTracks().forEach((track) => track.stop());
      video.srcObject = stream;
      await video.play();
      document.body.classList.add("with-video");
    } catch (error) {
      status.textContent = `The camera cannot be used: ${error.message}`;
    }
  },

  async takePicture() {
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
  },

  // The conversation stays in this tab when it is loaded again. It is the browser that keeps it, and for no other tab.
  keep(messages) {
    if (!llava.hasRecalled) return; // the page is being drawn, and the chat still empty
    try {
      sessionStorage.setItem("llava-chat", JSON.stringify(messages ?? []));
    } catch {
      sessionStorage.removeItem("llava-chat"); // longer than the browser keeps: none is better than an older one
    }
  },

  recall() {
    llava.hasRecalled = true;
    return sessionStorage.getItem("llava-chat") ?? "[]";
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
    if (event.key !== "Escape") return;
    if (llava.isOpen("camera")) llava.showCamera(false);
    else document.body.classList.remove("with-side");
  });
  addEventListener("click", (event) => {
    if (event.target.closest?.("#snap")) llava.takePicture();
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
