// Drawing the region of interest and the ignore mask over an image, in pixels of the image.

const $ = (selector, root = document) => root.querySelector(selector);
const box = $("[data-draw]");
if (box) {
  const canvas = $("[data-canvas]", box);
  const view = canvas.getContext("2d");
  const [width, height] = [Number(box.dataset.width), Number(box.dataset.height)];
  const form = $("[data-region]");
  const names = ["x", "y", "width", "height"];
  const fields = names.map((name) => form.elements[name]);
  const status = $("[data-mask-status]", box);
  const regionStatus = $("[data-region-status]");
  const mask = new OffscreenCanvas(width, height); // opaque where the image is ignored
  const marks = mask.getContext("2d", { willReadFrequently: true });
  const before = [];
  let [version, saved, last] = [0, 0, 0]; // of the mask: shown, saved, and the last number
  let loaded = Promise.resolve(); // when the saved mask is shown
  let tool = "region";
  let from = null; // where the pointer went down
  let rectangle = null; // being drawn

  const region = () => (fields.every((field) => field.value !== "") ? fields.map((field) => Number(field.value)) : null);

  function draw() {
    view.clearRect(0, 0, width, height);
    view.globalAlpha = 0.55;
    view.drawImage(mask, 0, 0);
    view.globalAlpha = 1;
    const [line, shown] = [Math.max(2, width / 400), region()];
    if (shown) {
      view.fillStyle = "#0008";
      view.beginPath();
      view.rect(0, 0, width, height);
      view.rect(...shown);
      view.fill("evenodd");
      outline(shown, line);
    }
    if (rectangle) outline(rectangle, line);
  }

  function outline(place, line) {
    view.lineWidth = 2 * line;
    view.strokeStyle = "#000";
    view.strokeRect(...place);
    view.lineWidth = line;
    view.strokeStyle = "#fff";
    view.setLineDash([4 * line, 3 * line]);
    view.strokeRect(...place);
    view.setLineDash([]);
  }

  function keep() {
    before.push({ pixels: marks.getImageData(0, 0, width, height), version });
    if (before.length > 20) before.shift();
    version = ++last;
    tell();
  }

  const maskChanged = () => version !== saved;
  const regionChanged = () => fields.some((field) => field.value !== field.defaultValue);

  function tell() {
    if (maskChanged()) status.textContent = "The ignore mask has changed: it is not saved yet.";
    if (regionChanged()) regionStatus.textContent = "The region has changed: it is not saved yet.";
  }

  const place = (event) => {
    const shown = canvas.getBoundingClientRect();
    const at = (value, most) => Math.min(Math.max(0, Math.round(value)), most);
    return [
      at(((event.clientX - shown.left) / shown.width) * width, width),
      at(((event.clientY - shown.top) / shown.height) * height, height),
    ];
  };

  const between = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.abs(ax - bx), Math.abs(ay - by)];

  function brush(start, end) {
    marks.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
    marks.strokeStyle = "#fff";
    marks.lineCap = "round";
    marks.lineWidth = Number($("[data-brush]", box).value);
    marks.beginPath();
    marks.moveTo(...start);
    marks.lineTo(end[0] + 0.01, end[1]);
    marks.stroke();
    marks.globalCompositeOperation = "source-over";
  }

  function ignore(place) {
    marks.fillStyle = "#fff";
    marks.fillRect(...place);
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    from = place(event);
    if (tool === "brush" || tool === "erase") keep();
    if (tool === "brush" || tool === "erase") brush(from, from);
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const here = place(event);
    if (tool === "brush" || tool === "erase") {
      brush(from, here);
      from = here;
    } else {
      rectangle = between(from, here);
    }
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    if (rectangle && rectangle[2] > 1 && rectangle[3] > 1) {
      if (tool === "region") {
        fields.forEach((field, index) => (field.value = rectangle[index]));
        tell();
      } else {
        keep();
        ignore(rectangle);
      }
    }
    from = rectangle = null;
    draw();
  });

  for (const button of box.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => {
      tool = button.dataset.tool;
      for (const each of box.querySelectorAll("[data-tool]")) each.setAttribute("aria-pressed", String(each === button));
    });
  }
  $("[data-undo]", box).addEventListener("click", () => {
    const undone = before.pop();
    if (undone) {
      marks.putImageData(undone.pixels, 0, 0);
      version = undone.version;
      status.textContent = maskChanged() ? "" : "The ignore mask is as it was saved.";
    }
    tell();
    draw();
  });
  form.addEventListener("input", () => {
    tell();
    draw();
  });
  $("[data-add-rectangle]").addEventListener("submit", (event) => {
    event.preventDefault();
    keep();
    ignore(names.map((name) => Number(event.target.elements[name].value)));
    draw();
  });

  async function send(method, address, body) {
    const response = await fetch(address, { method, body });
    if (!response.ok) throw new Error((await response.json()).error);
    return response;
  }

  async function maskImage() {
    const image = new OffscreenCanvas(width, height);
    const pixels = image.getContext("2d");
    pixels.fillStyle = "#000";
    pixels.fillRect(0, 0, width, height);
    pixels.drawImage(mask, 0, 0);
    return image.convertToBlob({ type: "image/png" });
  }

  // All that has changed, in one request: a new mask need not fit the old region. False: the page says why.
  async function save({ mask: wanted = false } = {}) {
    if (!form.reportValidity()) return false;
    await loaded;
    const [now, values] = [version, fields.map((field) => field.value)];
    const [withMask, withRegion] = [maskChanged() || wanted, regionChanged()];
    const region = new URLSearchParams(names.map((name, index) => [name, values[index]]));
    try {
      if (withMask) {
        const answer = await send("PUT", `${box.dataset.mask}?${withRegion ? region : ""}`, await maskImage());
        status.textContent = (await answer.json()).ignores
          ? "The ignore mask is saved."
          : "Nothing is drawn, so there is no ignore mask: everything in the region is inspected.";
        saved = now;
      } else if (withRegion) {
        await send("POST", form.action, region);
      }
    } catch (error) {
      const shown = withMask ? status : regionStatus;
      shown.textContent = `Not saved: ${error.message}`;
      shown.scrollIntoView({ block: "nearest" });
      return false;
    }
    if (withRegion) regionStatus.textContent = "The region is saved.";
    fields.forEach((field, index) => (field.defaultValue = values[index]));
    tell(); // what was drawn meanwhile
    return true;
  }

  $("[data-save-mask]", box).addEventListener("click", () => save({ mask: true }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await save()) location.reload();
  });
  $("[data-next]").addEventListener("click", async (event) => {
    if (!maskChanged() && !regionChanged()) return;
    event.preventDefault();
    if (await save()) location.assign(event.target.href);
  });

  // Other ways off the page: the browser asks. A form that deletes is meant to lose what it deletes.
  $("[data-delete-mask]").addEventListener("submit", () => (saved = version));
  $("[data-delete-region]")?.addEventListener("submit", () => fields.forEach((field) => (field.value = field.defaultValue)));
  addEventListener("beforeunload", (event) => {
    if (maskChanged() || regionChanged()) event.preventDefault();
  });

  // A saved mask is black and white; drawn marks are opaque or clear.
  async function loadMask() {
    const image = new Image();
    image.src = box.dataset.mask;
    await image.decode();
    const stored = new OffscreenCanvas(width, height);
    const view = stored.getContext("2d");
    view.drawImage(image, 0, 0, width, height);
    const pixels = view.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at] > 127 ? 255 : 0;
    view.putImageData(pixels, 0, 0);
    marks.drawImage(stored, 0, 0); // over what was drawn meanwhile
    before.length = 0; // without the saved mask
  }
  if (box.dataset.hasMask === "1") {
    loaded = loadMask().then(draw, () => (status.textContent = "The saved ignore mask cannot be shown: delete it, and draw it again."));
  }
  draw();
}
