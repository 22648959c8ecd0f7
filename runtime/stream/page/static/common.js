// What all pages share: texts, times and numbers of the viewer, requests, keys.

export const $ = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

export const language = document.documentElement.lang;
// Dates and numbers as this viewer writes them, if that is in the language of the page.
const locale = navigator.languages.find((each) => each.split("-")[0] === language) ?? language;
const texts = JSON.parse(document.body.dataset.texts);

export function text(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const part = ([words, language]) => {
  if (!language) return words;
  const span = document.createElement("span");
  span.lang = language;
  span.textContent = words;
  return span;
};

// A text as nodes. A value may be a list of [text, language]: what is in another language is marked so.
export const nodes = (key, values = {}) =>
  texts[key].split(/(\{\w+\})/).flatMap((piece) => {
    const value = piece.startsWith("{") ? values[piece.slice(1, -1)] : piece;
    return Array.isArray(value) ? value.map(part) : [String(value)];
  });

export const parts = (list) => list.map(part);

export const number = (value, digits) =>
  value.toLocaleString(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });

// Four digits that matter, whatever the size of a score.
export function score(value) {
  if (value === null) return "–";
  return value.toLocaleString(locale, { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
}

export const clock = (date, seconds = true) =>
  date.toLocaleTimeString(locale, { hourCycle: "h23", hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}) });

export const midnight = () => new Date().setHours(0, 0, 0, 0);

export async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error(text("unreachable"));
  }
  if (response.status === 401) {
    location.assign(`/login?to=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Error(text("logged_out"));
  }
  if (response.ok) return response;
  const type = response.headers.get("content-type") ?? "";
  const found = type.includes("json") ? await response.json() : { error: `${response.status}` };
  throw Object.assign(new Error(found.error), { parts: found.parts });
}

export const send = (address, body) =>
  request(address, {
    method: "POST",
    headers: { "content-type": "application/json", "x-token": document.body.dataset.token },
    body: JSON.stringify(body),
  });

// A key without Ctrl and the like, and not while a text is typed.
export function onKey(handlers) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input:not([type=checkbox]), select")) return;
    const handler = handlers[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (handler && handler(event) !== false) event.preventDefault();
  });
}

for (const time of all("time")) {
  const date = new Date(time.dateTime);
  const sameDay = date >= midnight();
  time.textContent = sameDay ? clock(date) : date.toLocaleString(locale, { dateStyle: "short", timeStyle: "medium", hourCycle: "h23" });
  time.title = date.toLocaleString(locale, { dateStyle: "full", timeStyle: "long", hourCycle: "h23" });
}

const logOut = $("[data-log-out]");
logOut?.addEventListener("click", async () => {
  await send("/logout", {});
  location.assign("/login");
});

// Buttons that a script works for come disabled: a click before it runs would do nothing. All scripts have run now.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of all("button[disabled]")) button.disabled = false;
});
