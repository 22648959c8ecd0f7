// Drawing the region of interest and the ignore mask over an image, in pixels of the image.

const $ = (selector, root = document) => root.querySelector(selector);
const box = $("[data-draw]");
if (box) {
  const canvas = $("[data-canvas]", box);
  const view = canvas.getContext("2d");
  const [width, height] = [Number(box.dataset.width), Number(box.dataset.height)];
  const form = $("[data-region]");
  const fields = ["x", "y", "width", "height"].map((name) => form.elements[name]);
  const status = $("[data-mask-status]", box);
  const mask = new OffscreenCanvas(width, height); // opaque where the image is ignored
  const marks = mask.getContext("2d", { willReadFrequently: true });
  const before = [];
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
    before.push(marks.getImageData(0, 0, width, height));
    if (before.length > 20) before.shift();
    status.textContent = "The ignore mask has changed: save it.";
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
    if (tool !== "region") keep();
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
      if (tool === "region") fields.forEach((field, index) => (field.value = rectangle[index]));
      else ignore(rectangle);
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
    const last = before.pop();
    if (last) marks.putImageData(last, 0, 0);
    draw();
  });
  form.addEventListener("input", draw);
  $("[data-add-rectangle]").addEventListener("submit", (event) => {
    event.preventDefault();
    keep();
    ignore(["x", "y", "width", "height"].map((name) => Number(event.target.elements[name].value)));
    draw();
  });

  $("[data-save-mask]", box).addEventListener("click", async () => {
    const saved = new OffscreenCanvas(width, height);
    const pixels = saved.getContext("2d");
    pixels.fillStyle = "#000";
    pixels.fillRect(0, 0, width, height);
    pixels.drawImage(mask, 0, 0);
    try {
      const response = await fetch(box.dataset.mask, { method: "PUT", body: await saved.convertToBlob({ type: "image/png" }) });
      if (!response.ok) throw new Error((await response.json()).error);
      status.textContent = "The ignore mask is saved.";
    } catch (error) {
      status.textContent = `The ignore mask is not saved: ${error.message}`;
    }
  });

  // A saved mask is black and white; drawn marks are opaque or clear.
  async function loadMask() {
    const image = new Image();
    image.src = box.dataset.mask;
    await image.decode();
    marks.drawImage(image, 0, 0, width, height);
    const pixels = marks.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at] > 127 ? 255 : 0;
    marks.putImageData(pixels, 0, 0);
  }
  if (box.dataset.hasMask === "1") loadMask().then(draw);
  draw();
}
