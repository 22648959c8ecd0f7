// One part: heatmap and boxes, marks, and keys.

import { $, all, nodes, onKey, send, text } from "./common.js";

const overlay = $("[data-overlay]"), boxes = $("[data-show-regions]"), form = $("[data-mark]");

function toggle(box, stored, apply) {
  if (!box) return;
  box.checked = localStorage.getItem(stored) !== "no";
  const changed = () => {
    localStorage.setItem(stored, box.checked ? "yes" : "no");
    apply(box.checked);
  };
  box.addEventListener("change", changed);
  changed();
}

toggle(overlay, "overlay", (shown) => ($("[data-drawn]").hidden = !shown));
toggle(boxes, "boxes", (shown) => ($("[data-regions]").toggleAttribute("hidden", !shown)));

async function mark(action) {
  const result = $("[data-result]"), field = form.elements.defect;
  result.className = "result";
  if (action === "defect" && !field.value.trim()) {
    result.textContent = text("name_it");
    field.focus();
    return;
  }
  for (const button of all("button", form)) button.disabled = true;
  try {
    await send(form.dataset.mark, { action, defect: field.value });
    location.reload();
  } catch (error) {
    result.classList.add("bad");
    result.replaceChildren(...nodes("failed", { reason: error.parts ?? error.message }));
    for (const button of all("button", form)) button.disabled = false;
  }
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  mark(event.submitter?.value || "defect");
});
for (const chip of all("[data-class]")) {
  chip.addEventListener("click", () => {
    form.elements.defect.value = chip.dataset.class;
    mark("defect");
  });
}

const learn = $("[data-learn]");
learn?.addEventListener("click", async () => {
  const result = $("[data-learn-result]");
  result.className = "result";
  result.textContent = text("learning");
  learn.disabled = true;
  try {
    await send(learn.dataset.learn, { action: learn.value });
    location.reload();
  } catch (error) {
    result.classList.add("bad");
    result.replaceChildren(...nodes("failed", { reason: error.parts ?? error.message }));
    learn.disabled = false;
  }
});

const press = (selector) => () => {
  const found = $(selector);
  if (!found) return false;
  found.click();
};
onKey({
  ...Object.fromEntries(all("[data-key]").map((link) => [link.dataset.key, () => link.click()])),
  o: press("[data-overlay]"),
  r: press("[data-show-regions]"),
  d: press("[data-mark] [value=defect]"),
  f: press("[data-mark] [value=false_alarm]"),
  u: press("[data-mark] [value=withdrawn]"),
  l: press("[data-learn][value=learn]"),
});
