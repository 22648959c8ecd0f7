// The gallery: times of the viewer in the filter, images that are gone, and the arrow keys.

import { $, all, onKey } from "./common.js";

for (const picture of all("[data-picture]")) {
  picture.addEventListener("error", () => picture.remove());
  if (picture.complete && !picture.naturalWidth) picture.remove();
}

const form = $("[data-filters]");
for (const field of all("[data-moment]", form)) {
  const seconds = form.elements[field.dataset.moment];
  if (seconds.value) {
    const date = new Date(1000 * Number(seconds.value));
    field.value = new Date(date - 60000 * date.getTimezoneOffset()).toISOString().slice(0, 16);
  }
  field.addEventListener("change", () => {
    seconds.value = field.value ? Math.round(new Date(field.value) / 1000) : "";
  });
}
form.addEventListener("submit", () => {
  for (const field of form.elements) field.disabled = field.name !== "" && field.value === ""; // a short address
});
window.addEventListener("pageshow", () => {
  for (const field of form.elements) field.disabled = false;
});

function move(step) {
  const cards = all("[data-cards] a");
  const place = cards.indexOf(document.activeElement);
  if (!cards.length) return false;
  cards[Math.max(0, Math.min(cards.length - 1, place < 0 ? 0 : place + step))].focus();
}

function columns() {
  const [first, ...rest] = all("[data-cards] li");
  const next = rest.findIndex((card) => card.offsetTop > (first?.offsetTop ?? 0));
  return next < 0 ? rest.length + 1 : next + 1;
}

onKey({
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
  ArrowDown: () => (document.activeElement.closest("[data-cards]") ? move(columns()) : move(0)),
  ArrowUp: () => (document.activeElement.closest("[data-cards]") ? move(-columns()) : false),
});
