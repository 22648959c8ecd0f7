// Scores images with the single file of a kit, in the browser. See docs/embed.md of msc-edge.

import * as ort from "./ort.wasm.min.mjs";

export const LABELS = ["normal", "warn", "reject"];

// Threads need a page that is isolated from others (the headers COOP and COEP); without them there is one.
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;

export async function openKit(url) {
  const session = await ort.InferenceSession.create(url, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  return new Kit(session);
}

class Kit {
  constructor(session) {
    this.session = session;
    this.running = Promise.resolve();
  }

  // pixels: Uint8Array of height x width x 3, RGB, row by row. Gives the outputs of the file by name.
  score(pixels, height, width) {
    const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
    const found = this.running.then(() => this.session.run({ image })); // a session computes one image at a time
    this.running = found.catch(() => {});
    return found;
  }

  // data: ImageData, as a canvas gives it.
  scoreImageData({ data, height, width }) {
    const pixels = new Uint8Array(height * width * 3);
    for (let from = 0, to = 0; from < data.length; from += 4) {
      pixels[to++] = data[from];
      pixels[to++] = data[from + 1];
      pixels[to++] = data[from + 2];
    }
    return this.score(pixels, height, width);
  }
}
