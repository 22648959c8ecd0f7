// The live page: asks for the state three times a second while it is seen, and draws it.

import { $, all, clock, midnight, nodes, number, onKey, parts, request, score, text } from "./common.js";
import { dayChart, scoreChart } from "./chart.js";

const INTERVAL = 300, COUNTS_INTERVAL = 5000, CHART_SECONDS = 120;
const OUTCOMES = ["normal", "warn", "reject", "not_scored"];
const alarm = $("[data-alarm]"), overlay = $("[data-overlay]");
const shown = new Map(); // of each source, the number of the frame on the page
let offset = 0; // seconds that the clock of the station is ahead of the viewer's

const set = (element, value) => {
  if (element.textContent !== value) element.textContent = value;
};

function fill(element, content) {
  const plain = content.map((node) => node.textContent ?? node).join("");
  if (element.textContent !== plain) element.replaceChildren(...content);
  element.hidden = !plain;
}

// What another program says stays as it is.
const asSentence = ([first, ...rest]) =>
  first && !first[1] ? [[first[0].charAt(0).toUpperCase() + first[0].slice(1), ""], ...rest] : first ? [first, ...rest] : [];

function drawVerdict(section, outcome, word) {
  section.dataset.outcome = outcome;
  $("[data-verdict] use", section).setAttribute("href", `#sign-${outcome}`);
  set($("[data-word]", section), text(word));
}

// Nothing is known of now: a verdict of before must not look like one of now.
function drawUnknown() {
  for (const section of all("[data-source]")) {
    section.classList.add("old");
    drawVerdict(section, "not_scored", "no_data");
    set($("[data-state]", section), text("state_unknown"));
    for (const name of ["age", "score"]) set($(`[data-${name}]`, section), "");
    fill($("[data-reason]", section), []);
  }
  list([["bad", [text("state_unknown")]]]);
}

function drawSource(section, source, reason) {
  const name = source.name;
  const inspects = source.state === "running" || source.state === "waiting" || source.state === "ended";
  const decision = source.last?.outcome === "not_scored" || !source.shown ? source.last : source.shown;
  let outcome = decision?.outcome ?? "none";
  let word = outcome;
  const seconds = decision ? Math.max(0, Math.round(Date.now() / 1000 + offset - decision.time)) : null;
  const isOld = source.old_after !== null && seconds !== null && seconds > source.old_after;
  if (source.state === "no_frames" || (isOld && source.state === "running")) [outcome, word] = ["not_scored", "no_frames"];
  else if (source.state === "not_scored") [outcome, word] = ["not_scored", "not_scored"];
  const old = !inspects || isOld || outcome === "not_scored";
  section.classList.toggle("old", old);
  drawVerdict(section, outcome, word);
  set($("[data-state]", section), text(`state_${source.state}`));
  const missed = isOld || source.state === "no_frames" || source.state === "not_scored";
  fill($("[data-reason]", section), [...(missed ? [`${text("not_inspected")} `] : []), ...parts(asSentence(reason))]);
  set($("[data-age]", section), seconds === null || seconds < 3 ? "" : text("ago", { seconds: number(seconds, 0) }));
  const known = !old && decision?.score != null;
  set($("[data-score]", section), known ? text("score", { score: score(decision.score), limit: score(decision.limit) }) : "");
  scoreChart($("[data-chart]", section), {
    points: source.points, limit: source.limit, warn: source.warn, now: Date.now() / 1000 + offset, seconds: CHART_SECONDS, label: score(source.limit),
  });
  const key = `${source.shown?.number} ${overlay.checked}`;
  if (source.shown && shown.get(name) !== key) {
    shown.set(name, key);
    const frame = $("[data-frame]", section), next = new Image();
    next.onload = () => {
      frame.src = next.src;
      frame.hidden = false;
      frame.dataset.number = source.shown.number;
      $("[data-no-frame]", section).hidden = true;
    };
    next.src = `/live/${encodeURIComponent(name)}.jpg?${source.shown.number}${overlay.checked ? "" : "&plain"}`;
  }
}

function facts(live, reasons) {
  const lines = reasons.not_ready.map((reason) => ["bad", nodes("not_ready", { reason })]);
  if (!lines.length) lines.push(["good", nodes("ready")]);
  const drifted = live.sources.filter((source) => source.drift);
  lines.push(...drifted.map((source) => ["warn", nodes("drift", { source: source.name })]));
  if (!drifted.length) lines.push(["good", nodes("no_drift")]);
  for (const sink of live.sinks) {
    const kind = sink.fails ? (sink.set_aside ? "aside" : "fails") : "works";
    const values = { name: sink.name, waiting: number(sink.waiting, 0), count: number(sink.set_aside, 0), reason: reasons.sinks[sink.name] };
    lines.push([sink.fails ? "bad" : "good", nodes(`sink_${kind}`, values)]);
  }
  for (const kit of live.kits) {
    const facts = { name: kit.name, model: kit.model, sha: kit.sha256.slice(0, 12), count: kit.learned };
    lines.push(["plain", kit.learned ? nodes("kit_learned", facts) : nodes("kit", facts)]);
  }
  list(lines);
}

function list(lines) {
  const content = lines.map(([kind, line]) => {
    const item = document.createElement("li");
    item.className = kind;
    item.append(...line);
    return item;
  });
  const place = $("[data-facts]");
  if (place && place.textContent !== content.map((item) => item.textContent).join("")) place.replaceChildren(...content);
}

async function load() {
  try {
    const { age, silent, failure, live, reasons } = await (await request("/live", { signal: AbortSignal.timeout(5000) })).json();
    if (!live) return;
    if (live.sources.length !== all("[data-source]").length) return location.reload();
    offset = live.time + age - Date.now() / 1000;
    const records = failure.length ? nodes("records", { reason: failure }) : [];
    fill(alarm, silent ? nodes("silent", { seconds: 5 * Math.floor(age / 5) }) : records);
    for (const source of live.sources) {
      drawSource($(`[data-source="${CSS.escape(source.name)}"]`), source, reasons.sources[source.name]);
    }
    if (silent) drawUnknown(); // the frame and the chart stay, as the last ones
    else facts(live, reasons);
  } catch (error) {
    const interrupted = error instanceof DOMException || error instanceof TypeError; // while the answer came
    fill(alarm, error.parts ? parts(error.parts) : [interrupted ? text("unreachable") : error.message]);
    drawUnknown();
  }
}

const share = (good, inspected) => (inspected ? `${number((100 * good) / inspected, 1)} %` : "–");

async function loadCounts() {
  const sections = all("[data-source]");
  if (!sections.length) return;
  const since = midnight() / 1000;
  let counts;
  try {
    ({ counts } = await (await request(`/counts?since=${since}`)).json());
  } catch {
    return; // the state shows what is wrong
  }
  for (const section of sections) {
    const own = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0]));
    for (const bin of counts) if (bin.source === section.dataset.source) for (const outcome of OUTCOMES) own[outcome] += bin[outcome] ?? 0;
    for (const outcome of OUTCOMES) set($(`[data-count=${outcome}]`, section), number(own[outcome], 0));
    set($("[data-count=yield]", section), share(own.normal + own.warn, own.normal + own.warn + own.reject));
  }
  const hours = [];
  for (let hour = 0; hour <= new Date().getHours(); hour++) {
    hours.push({ label: clock(new Date(new Date().setHours(hour, 0, 0, 0)), false), ...Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0])) });
  }
  for (const bin of counts) {
    const hour = hours[new Date(1000 * bin.time).getHours()];
    if (hour) for (const outcome of OUTCOMES) hour[outcome] += bin[outcome] ?? 0;
  }
  const first = hours.findIndex((hour) => OUTCOMES.some((outcome) => hour[outcome]));
  const seen = hours.slice(Math.max(0, Math.min(first < 0 ? hours.length : first, hours.length - 8)));
  for (const hour of seen) hour.yield = share(hour.normal + hour.warn, hour.normal + hour.warn + hour.reject);
  $("[data-day]").hidden = first < 0;
  $("[data-no-parts]").hidden = first >= 0;
  if (first < 0) return;
  dayChart($("[data-yield]"), seen);
  const table = $("[data-hours]");
  $("tbody", table).replaceChildren(
    ...seen.filter((hour) => OUTCOMES.some((outcome) => hour[outcome])).map((hour) => {
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = hour.label;
      row.append(head, ...[...OUTCOMES.map((outcome) => number(hour[outcome], 0)), hour.yield].map((value) => {
        const cell = document.createElement("td");
        cell.textContent = value;
        return cell;
      }));
      return row;
    }),
  );
}

async function again(work, interval) {
  if (!document.hidden) await work();
  setTimeout(again, interval, work, interval);
}

document.addEventListener("visibilitychange", () => document.hidden || load());
onKey({ o: () => { if (overlay) overlay.checked = !overlay.checked; } });
again(load, INTERVAL);
again(loadCounts, COUNTS_INTERVAL);
