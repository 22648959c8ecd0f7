// Scores raw images with the web demo, in its page: a function of the content of images.json. See score_all.js.
async (list) => {
  const { openKit } = await import("./scoring.js");
  const kit = await openKit("kit.onnx");
  const results = [];
  for (const { file, height, width } of list) {
    const pixels = new Uint8Array(await (await fetch(`images/${file}`)).arrayBuffer());
    const before = performance.now();
    const found = await kit.score(pixels, height, width);
    const milliseconds = performance.now() - before;
    const values = Object.entries(found).map(([name, { data }]) => [name, Array.from(data, Number)]);
    const result = { ...Object.fromEntries(values), milliseconds };
    result.anomaly_map_224 = result.anomaly_map_224?.filter((_, place) => place % 211 === 0);
    delete result.embedding;
    results.push(result);
  }
  return results;
}
