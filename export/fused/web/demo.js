// The page: images that are chosen or dropped, and the camera, with verdict and heatmap.

import { LABELS, openKit } from "./scoring.js";

const $ = (id) => document.getElementById(id);
const WORDS = { normal: "normal", warn: "warning", reject: "reject" };
const SIGNS = { normal: "✓", warn: "▲", reject: "✕" };

const about = await (await fetch("kit.json")).json();
let kit;
let current = null;

function say(text, isError = false) {
  $("state").textContent = text;
  $("state").classList.toggle("error", isError);
}

try {
  kit = await openKit("kit.onnx");
  say(`Kit ${about.kit_name}: model ${about.model}, ${about.bank.rows} normal images. It runs in this browser.`);
  $("files").disabled = false;
  $("camera").disabled = !navigator.mediaDevices;
} catch (error) {
  say(`The kit cannot be opened: ${error.message}`, true);
}

// A p-value in words, as on the page of a station.
function inWords(p) {
  const count = Math.round(1 / p);
  if (count < 20) return `${Math.round(100 * p)} % of good parts look like this, or more unusual.`;
  return `${p <= about.least_p_value ? "At most one" : "One"} good part in ${count} looks like this.`;
}

function draw() {
  const { bitmap, found } = current;
  const canvas = $("image");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  if ($("heatmap").checked && found.anomaly_map_224) {
    context.drawImage(coloured(found.anomaly_map_224), 0, 0, canvas.width, canvas.height);
  }
}

// The heatmap as a canvas, in the colours of msc-edge: transparent below the first of them.
function coloured({ data, dims }) {
  const side = dims[1];
  const image = new ImageData(side, side);
  const stops = about.colours;
  for (let place = 0; place < data.length; place++) {
    const relative = Math.min(data[place] / about.map_limit.score, stops.at(-1)[0]);
    if (relative <= stops[0][0]) continue;
    const next = stops.findIndex(([value]) => relative <= value);
    const [[from, low], [to, high]] = [stops[next - 1], stops[next]];
    const share = (relative - from) / (to - from);
    const colour = low.map((value, channel) => value + share * (high[channel] - value));
    const opacity = about.opacity * Math.min((relative - stops[0][0]) / (1 - stops[0][0]), 1);
    image.data.set([...colour, 255 * opacity], 4 * place);
  }
  const canvas = new OffscreenCanvas(side, side);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

async function show(bitmap, name) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const before = performance.now();
  const found = await kit.scoreImageData(context.getImageData(0, 0, bitmap.width, bitmap.height));
  const took = performance.now() - before;
  const [score, p, verdict] = [found.score.data[0], found.p_value.data[0], LABELS[found.verdict.data[0]]];
  current?.bitmap.close();
  current = { bitmap, found };
  draw();
  $("current").hidden = false;
  $("current").dataset.verdict = verdict;
  $("verdict").querySelector(".sign").textContent = SIGNS[verdict];
  $("verdict").querySelector("strong").textContent = WORDS[verdict];
  $("image").ariaLabel = `${name}: ${WORDS[verdict]}`;
  const limit = about.limits.reject.score;
  $("figures").textContent = `${name}: score ${score.toFixed(4)}, limit ${limit.toFixed(4)}. ${inWords(p)} ${Math.round(took)} ms.`;
  return { score, p, verdict };
}

function addRow(name, cells, verdict = "") {
  const row = $("rows").insertRow(0);
  row.dataset.verdict = verdict;
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  row.append(head);
  for (const text of cells) row.insertCell().textContent = text;
  $("rows").parentElement.hidden = false;
}

async function scoreFiles(files) {
  stopCamera();
  for (const file of files) {
    try {
      // "none": the pixels as they are stored, as msc-edge decodes them, not converted to a colour space.
      const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      const { score, p, verdict } = await show(bitmap, file.name);
      addRow(file.name, [WORDS[verdict], score.toFixed(6), p.toPrecision(3)], verdict);
    } catch (error) {
      addRow(file.name, [`not scored: ${error.message}`, "", ""]);
    }
  }
}

let stream = null;

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("camera").textContent = "Use the camera";
}

async function useCamera() {
  if (stream) return stopCamera();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    return say(`No camera: ${error.message}`, true);
  }
  const own = stream;
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  $("camera").textContent = "Stop the camera";
  while (stream === own) {
    await show(await createImageBitmap(video), "camera");
    await new Promise(requestAnimationFrame);
  }
}

$("files").addEventListener("change", () => scoreFiles([...$("files").files]));
$("camera").addEventListener("click", useCamera);
$("heatmap").addEventListener("change", () => current && draw());
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (kit) scoreFiles([...event.dataTransfer.files]);
});
