// Score images with one ONNX file: node score.js kit.onnx IMAGE...
// First: npm install

import * as ort from "onnxruntime-node";
import sharp from "sharp";

const LABELS = ["normal", "warn", "reject"];
const [model, ...images] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3 }); // else it warns that limits may be given

for (const path of images) {
  // rotate(): as the EXIF orientation says. The pixels are RGB, 8 bits a channel, row by row.
  const { data, info } = await sharp(path).rotate().removeAlpha().toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
  const image = new ort.Tensor("uint8", data, [1, info.height, info.width, 3]);
  const { score, p_value, verdict } = await session.run({ image }, ["score", "p_value", "verdict"]);
  console.log(`${path}\t${LABELS[verdict.data[0]]}\tscore ${score.data[0].toFixed(6)}\tp-value ${p_value.data[0].toFixed(6)}`);
}
