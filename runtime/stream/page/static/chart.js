// Charts as SVG, drawn in the pixels of the page.

const NAMESPACE = "http://www.w3.org/2000/svg";

function draw(parent, name, attributes, text) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
}

function begin(svg, height) {
  const width = svg.parentElement.clientWidth;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.replaceChildren();
  return width;
}

// Scores of the last `seconds`: points of [time, score, outcome]; a mark for each warning and reject.
export function scoreChart(svg, { points, limit, warn, now, seconds, label }) {
  const height = 130, top = 10, bottom = 18;
  const width = begin(svg, height);
  const shown = points.filter((point) => point[0] > now - seconds);
  const scores = [...shown.map((point) => point[1]), limit];
  let [low, high] = [Math.min(0, ...scores), Math.max(limit * 1.25, ...scores)];
  if (limit > 0) high = Math.min(high, 3 * limit); // a far outlier is drawn at the edge, so that the rest is seen
  if (high <= low) high = low + 1;
  const x = (time) => width * (1 - (now - time) / seconds);
  const y = (value) => top + (height - top - bottom) * (1 - Math.min(1, (value - low) / (high - low)));
  draw(svg, "line", { class: "axis", x1: 0, x2: width, y1: height - bottom, y2: height - bottom });
  if (warn < limit) draw(svg, "line", { class: "warn-limit", x1: 0, x2: width, y1: y(warn), y2: y(warn) });
  draw(svg, "line", { class: "limit", x1: 0, x2: width, y1: y(limit), y2: y(limit) });
  draw(svg, "text", { x: 4, y: y(limit) - 4 }, label);
  draw(svg, "text", { x: 0, y: height - 4 }, `−${seconds / 60} min`);
  // No line over a time without scores.
  let path = "", last = -Infinity;
  for (const [time, value] of shown) {
    path += `${time - last > 5 ? "M" : "L"}${x(time).toFixed(1)},${y(value).toFixed(1)}`;
    last = time;
  }
  draw(svg, "path", { class: "scores", d: path || "M0,0" });
  for (const [time, value, outcome] of shown) {
    const [across, down] = [x(time), y(value)];
    if (outcome === "reject") draw(svg, "rect", { class: "reject", x: across - 4, y: down - 4, width: 8, height: 8 });
    else if (outcome === "warn") draw(svg, "path", { class: "warn", d: `M${across},${down - 5}l5,9h-10z` });
    else draw(svg, "circle", { class: "normal", cx: across, cy: down, r: 2 });
  }
}

// Stacked bars for each hour of the day: a list of {label, normal, warn, reject, not_scored}.
export function dayChart(svg, hours) {
  const height = 150, top = 18, bottom = 20;
  const width = begin(svg, height);
  const total = (hour) => hour.normal + hour.warn + hour.reject + hour.not_scored;
  const most = Math.max(1, ...hours.map(total));
  const step = width / hours.length;
  hours.forEach((hour, place) => {
    let down = height - bottom;
    for (const outcome of ["normal", "warn", "reject", "not_scored"]) {
      const size = ((height - top - bottom) * hour[outcome]) / most;
      down -= size;
      if (size) draw(svg, "rect", { class: outcome, x: place * step + 1, y: down, width: Math.max(1, step - 2), height: size });
    }
    if (place % Math.ceil(36 / step) === 0) draw(svg, "text", { x: place * step + 1, y: height - 5 }, hour.label);
    if (step > 40 && total(hour)) draw(svg, "text", { x: place * step + 1, y: down - 4 }, hour.yield);
  });
}
