// The pages work by forms; this adds what changes while a page is open. Nothing is computed here: the server does it.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

async function answer(response) {
  if (response.ok) return response;
  const type = response.headers.get("content-type") ?? "";
  throw new Error(type.includes("json") ? (await response.json()).error : `the server answered ${response.status}`);
}

const controls = (part) => all("a[href], button, input", part);

// Parts that show work that runs or waits: loaded again each second, and the whole page when its state has changed.
for (const part of all("[data-live]")) {
  const state = $("[data-work]", part)?.dataset.work;
  const load = async () => {
    try {
      const response = await fetch(part.dataset.live, { headers: { accept: "text/plain" } });
      const text = await (await answer(response)).text();
      if (!text.includes(`data-work="${state}"`)) return location.reload();
      const focused = controls(part).indexOf(document.activeElement);
      part.innerHTML = text;
      controls(part)[focused]?.focus();
    } catch {
      // The studio is stopped or restarted: the next try shows it again.
    }
    setTimeout(load, 1000);
  };
  setTimeout(load, 1000);
}

// A form that is refused keeps what was typed: the reason is shown in it.
for (const form of all("form[data-kept]")) {
  let reason = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [button, body] = [event.submitter, new URLSearchParams(new FormData(form, event.submitter))];
    button.disabled = true; // shows that it works, and a second click sends nothing
    try {
      location.assign((await answer(await fetch(form.action, { method: "POST", body }))).url);
    } catch (error) {
      reason?.remove(); // a new one is read out
      reason = document.createElement("p");
      reason.className = "note bad";
      reason.setAttribute("role", "alert");
      reason.textContent = error.message;
      form.after(reason);
      button.disabled = false;
      button.focus();
    }
  });
}

// Choosing a folder of this PC.
const dialog = $("#browse");
if (dialog) {
  let field = null;
  const show = async (path) => {
    const response = await fetch(`/folders?path=${encodeURIComponent(path)}`);
    const listing = $("[data-listing]", dialog);
    try {
      listing.innerHTML = await (await answer(response)).text();
    } catch (error) {
      if (path) return show("");
      listing.textContent = error.message;
    }
  };
  for (const button of all("[data-browse]")) {
    button.addEventListener("click", async () => {
      field = $("input[name=folder]", button.form);
      await show(field.value);
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", (event) => {
    const { folder, choose, close } = event.target.dataset;
    if (folder !== undefined) show(folder);
    if (choose !== undefined) field.value = $("[data-current]", dialog).dataset.current;
    if (choose !== undefined || close !== undefined) dialog.close();
  });
}

// Dropped or chosen files are sent one after the other.
for (const box of all("[data-upload]")) {
  const input = $("input[type=file]", box);
  const status = $("[data-status]", box);
  input.addEventListener("change", async () => {
    const which = box.dataset.which;
    const label = $("[data-label-field]", box)?.value ?? "";
    const files = [...input.files];
    const refused = [];
    for (const [done, file] of files.entries()) {
      status.textContent = `Sending ${done + 1} of ${files.length}`;
      const query = new URLSearchParams({ which, label, name: file.name });
      try {
        await answer(await fetch(`${box.dataset.upload}?${query}`, { method: "PUT", body: file }));
      } catch (error) {
        refused.push(error.message);
      }
    }
    input.value = "";
    if (!refused.length) return location.reload();
    status.textContent = `${files.length - refused.length} received. ${refused.slice(0, 5).join(" ")}`;
  });
}

// Comparing kits: on the labelled images of their own project.
for (const form of all("[data-compare]")) {
  const { first, second, test } = form.elements;
  const projects = () => [first, second].map((kit) => kit.selectedOptions[0].dataset.project);
  const choose = () => {
    const known = [...test.options].map((option) => option.value);
    test.value = projects().find((project) => known.includes(project)) ?? "";
  };
  for (const kit of [first, second]) kit.addEventListener("change", choose);
}

// The limit: the server says what each place would do.
for (const box of all("[data-limit]")) {
  const [slider, typed, shown] = [$("input[type=range]", box), $("input[type=number]", box), $("#at-limit")];
  let last = 0;
  const show = async (score) => {
    const number = ++last;
    const response = await fetch(`${box.dataset.limit}?score=${encodeURIComponent(score)}`);
    try {
      const text = await (await answer(response)).text();
      if (number === last) shown.innerHTML = text;
    } catch (error) {
      shown.textContent = error.message;
    }
  };
  let waiting = 0;
  const later = (score) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => show(score), 120);
  };
  slider.addEventListener("input", () => {
    typed.value = slider.value;
    later(slider.value);
  });
  $("[data-typed]", box).addEventListener("submit", (event) => {
    event.preventDefault();
    slider.value = typed.value;
    show(typed.value);
  });
  $("[data-reset]", box).addEventListener("click", (event) => {
    slider.value = typed.value = event.target.dataset.reset;
    show(event.target.dataset.reset);
  });
  shown.addEventListener("click", (event) => {
    const rate = event.target.dataset.useRate;
    if (rate === undefined) return;
    const field = $("[data-rate]");
    field.value = rate;
    // The warn limit is never above the reject limit.
    const warn = $("[name=warn_rate]", field.form);
    if (Number(warn.value) < Number(rate)) warn.value = rate;
    field.focus();
  });
}

// Any image: scored by the kit.
for (const box of all("[data-try]")) {
  const [input, result] = [$("input[type=file]", box), $("[data-result]", box)];
  input.addEventListener("change", async () => {
    if (!input.files.length) return;
    result.textContent = "Scoring";
    try {
      result.innerHTML = await (await answer(await fetch(box.dataset.try, { method: "POST", body: input.files[0] }))).text();
    } catch (error) {
      result.textContent = error.message;
    }
  });
}
