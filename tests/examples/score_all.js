// Scores raw images with a single file in Node: node score_all.js kit.onnx images.json. Prints JSON.

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const [model, list] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3, intraOpNumThreads: 1 });
const results = [];
for (const { file, height, width } of JSON.parse(readFileSync(list, "utf8"))) {
  const pixels = new Uint8Array(readFileSync(new URL(file, `file://${list}`)));
  const before = performance.now();
  const found = await session.run({ image: new ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  const milliseconds = performance.now() - before;
  const values = Object.entries(found).map(([name, { data }]) => [name, Array.from(data, Number)]);
  const result = { ...Object.fromEntries(values), milliseconds };
  result.anomaly_map_224 = result.anomaly_map_224?.filter((_, place) => place % 211 === 0);
  delete result.embedding;
  results.push(result);
}
console.log(JSON.stringify(results));
