"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("cards");
  const controls = document.getElementById("controls");
  const more = document.getElementById("more");
  const exporter = document.getElementById("export");
  const PAGE = 36;
  const store = "completion marks " + (data.run_id || data.run || "");
  let marks = new Map();
  let found = [];
  let shown = 0;

  // A browser may refuse storage to pages opened from disk; marks then last as long as the page.
  try { marks = new Map(JSON.parse(localStorage.getItem(store) || "[]")); } catch { /* kept in memory */ }

  const known = new Set(data.cards.map((card) => card.id));
  for (const id of [...marks.keys()]) if (!known.has(id)) marks.delete(id);

  const texts = new Map(data.cards.map((card) => [card, [
    card.id, ...card.text, card.reason || "",
  ].join("\n").toLowerCase()]));

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  }

  function figure(value) {
    return value === undefined || value === null ? "–" : value.toFixed(3);
  }

  function picture(key, alternative) {
    const image = make("img");
    image.src = data.images[key];
    image.alt = alternative;
    image.loading = "lazy";
    image.decoding = "async";
    return image;
  }

  function copied(card) {
    return Boolean(card.made && data.copying.includes(card.made.generator));
  }

  function half(card, modality) {
    const made = card.status === "completed" && card.missing === modality;
    const element = make("div", "half" + (modality === "image" ? " picture" : "") + (made ? " made" : ""));
    const there = modality === "image" ? card.image : card.text.length;
    // What is copied is another pair's: nothing was generated.
    if (made) element.append(make("span", "badge", (copied(card) ? "copied " : "generated ") + modality));
    if (!there) {
      element.classList.add("absent");
      element.append(make("p", "", "no " + modality));
    } else if (modality === "image") {
      element.append(picture(card.image, made ? (copied(card) ? "copied image" : "generated image") : "observed image"));
    } else {
      for (const line of card.text) element.append(make("p", "", line));
    }
    return element;
  }

  function grounding(example, said) {
    const element = make("div", "ground");
    if (example.image) element.append(picture(example.image, "image of the retrieved pair"));
    const words = make("div");
    words.append(make("span", "quote", example.text || ""));
    const alone = (example.shown || []).length === 1
      ? { image: "its picture alone", text: "its text alone" }[example.shown[0]] : "";
    const changed = example.changed ? "its picture is another since" : "";
    const origin = [example.source, example.licence, example.id, alone, changed].filter(Boolean).join(" · ");
    words.append(make("small", "", said + origin));
    words.append(make("small", "", `same modality ${figure(example.intra)} · across ${figure(example.cross)} · score ${figure(example.score)}`));
    element.append(words);
    return element;
  }

  function candidates(card) {
    const table = make("table");
    const heads = ["", "cos", card.missing === "image" ? "NIQE" : "BLEU", "score"];
    const row = table.createTHead().insertRow();
    heads.forEach((head, place) => {
      const cell = make("th", place ? "n" : "", head);
      cell.scope = "col";
      row.append(cell);
    });
    const body = table.createTBody();
    card.candidates.forEach((one, place) => {
      const line = body.insertRow();
      line.className = place === card.chosen ? "win" : one.valid ? "" : "bad";
      const cell = make("td", "cand", one.text || "candidate " + (place + 1));
      const remarks = [
        place === card.chosen ? "chosen" : "", one.reason || "",
        one.alone ? "without an example" : "", ...(one.notes || []),
      ].filter(Boolean).join(" · ");
      if (remarks) cell.append(make("small", "note", remarks));
      if (one.seed) cell.title = "seed " + one.seed;
      line.append(cell);
      for (const value of [one.cosine, card.missing === "image" ? one.niqe : one.bleu, one.score]) {
        line.append(make("td", "n", figure(value)));
      }
    });
    return table;
  }

  function details(card) {
    const element = make("details");
    element.append(make("summary", "", `${card.candidates.length} candidates and how they were made`));
    const inside = make("div", "inside");
    inside.append(candidates(card));
    const facts = make("dl");
    const entries = { ...card.made, "knowledge base": card.kb };
    if (card.confidence !== undefined) {
      entries["expected similarity to the truth"] = figure(card.confidence);
      entries["probability of a gain"] = figure(card.gain_probability);
    }
    for (const [name, value] of Object.entries(entries)) {
      if (value === undefined || value === null || value === "") continue;
      facts.append(make("dt", "", name), make("dd", "", String(value)));
    }
    inside.append(facts);
    element.append(inside);
    return element;
  }

  // What a review said before stands until it is marked otherwise on this page.
  const earlier = { accepted: "accept", rejected: "reject" };
  const before = new Map(data.cards.filter((card) => earlier[card.review])
    .map((card) => [card.id, earlier[card.review]]));
  const verdict = (id) => marks.get(id) ?? before.get(id);

  function paint(element, id) {
    const mark = verdict(id);
    element.classList.toggle("accept", mark === "accept");
    element.classList.toggle("reject", mark === "reject");
    const yes = element.querySelector(".yes");
    if (!yes) return;
    yes.setAttribute("aria-pressed", String(mark === "accept"));
    element.querySelector(".no").setAttribute("aria-pressed", String(mark === "reject"));
  }

  function mark(element, chosen) {
    const id = element.dataset.id;
    if (!element.querySelector(".yes")) return;
    if (chosen === null || marks.get(id) === chosen || before.get(id) === chosen) marks.delete(id);
    else marks.set(id, chosen);
    try { localStorage.setItem(store, JSON.stringify([...marks])); } catch { /* kept in memory */ }
    paint(element, id);
    count();
  }

  const said = {
    accepted: "accepted in a review",
    rejected: "rejected in a review; the next run generates it again",
    redone: "generated again after a rejection",
  };

  function build(card) {
    const element = make("li", "card");
    element.tabIndex = -1;
    element.dataset.id = card.id;
    element.setAttribute("aria-label", `${card.status} row ${card.id}`);
    const top = make("div", "top");
    const status = make("span");
    status.append(make("span", "dot " + card.status), card.status);
    top.append(status);
    if (card.score !== undefined) top.append(make("span", "score", figure(card.score)));
    const id = make("span", "id mono", card.id);
    id.title = card.id;
    top.append(id);
    element.append(top, half(card, "image"), half(card, "text"));
    if (said[card.review]) element.append(make("p", "why", said[card.review]));
    if (card.reason) element.append(make("p", "why", (card.missing ? `${card.missing} missing: ` : "") + card.reason));
    for (const example of card.examples || []) element.append(grounding(example, copied(card) ? "retrieved: " : "grounded in "));
    for (const pair of card.dropped || []) {
      const origin = [pair.source, pair.licence, pair.id].filter(Boolean).join(" · ");
      element.append(make("p", "why", `retrieved, but not shown: ${origin}: ${pair.reason}`));
    }
    if (card.candidates && card.candidates.length) element.append(details(card));
    if (card.status === "completed") {
      const row = make("div", "marks");
      for (const [kind, label, chosen] of [["yes", "Accept", "accept"], ["no", "Reject", "reject"]]) {
        const button = make("button", kind, label);
        button.type = "button";
        button.addEventListener("click", () => mark(element, chosen));
        row.append(button);
      }
      element.append(row);
    }
    paint(element, card.id);
    return element;
  }

  function cosine(card) {
    const chosen = card.candidates && card.candidates[card.chosen];
    return chosen && chosen.cosine !== undefined ? chosen.cosine : Infinity;
  }

  // Scores of texts and of images are different scales: what compares is the place among its own.
  function placesBy(name) {
    const places = new Map();
    for (const missing of ["text", "image"]) {
      const own = data.cards.filter((card) => card.missing === missing && card[name] !== undefined);
      own.sort((a, b) => a[name] - b[name]);
      own.forEach((card, place) => places.set(card, (place + 0.5) / own.length));
    }
    return places;
  }
  const places = placesBy("score");
  const sure = placesBy("confidence");

  const orders = {
    worst: (a, b) => (places.get(a) ?? Infinity) - (places.get(b) ?? Infinity),
    best: (a, b) => (places.get(b) ?? -Infinity) - (places.get(a) ?? -Infinity),
    doubt: (a, b) => (sure.get(a) ?? Infinity) - (sure.get(b) ?? Infinity),
    cosine: (a, b) => cosine(a) - cosine(b),
    order: () => 0,
  };

  function marked(card, want) {
    if (want === "redone") return card.review === "redone";
    return want === "none" ? card.status === "completed" && !verdict(card.id) : verdict(card.id) === want;
  }

  function refresh() {
    const want = Object.fromEntries(new FormData(controls));
    const search = want.search.trim().toLowerCase();
    found = data.cards.filter((card) =>
      (!want.status || card.status === want.status)
      && (!want.missing || card.missing === want.missing)
      && (!want.mark || marked(card, want.mark))
      && (!search || texts.get(card).includes(search)));
    // Infinity minus Infinity is no number; such cards keep their order.
    found.sort((a, b) => orders[want.sort](a, b) || 0);
    list.replaceChildren();
    shown = 0;
    extend();
  }

  function extend() {
    const next = found.slice(shown, shown + PAGE);
    list.append(...next.map(build));
    shown += next.length;
    if (!found.length) list.append(make("li", "empty", "No row fits these filters."));
    more.hidden = shown >= found.length;
    const first = list.querySelector(".card");
    if (first && !list.querySelector('.card[tabindex="0"]')) first.tabIndex = 0;
    count();
  }

  function count() {
    const counted = { accept: 0, reject: 0 };
    for (const verdict of marks.values()) counted[verdict] += 1;
    const rows = `${found.length} of ${data.cards.length} rows`;
    document.getElementById("count").textContent = marks.size
      ? `${rows} · ${counted.accept} accepted, ${counted.reject} rejected` : rows;
    exporter.disabled = !marks.size;
  }

  function focusCard(card) {
    for (const other of list.querySelectorAll('.card[tabindex="0"]')) other.tabIndex = -1;
    card.tabIndex = 0;
    card.focus();
    card.scrollIntoView({ block: "nearest" });
  }

  function step(distance) {
    const all = [...list.querySelectorAll(".card")];
    const at = all.findIndex((card) => card.contains(document.activeElement));
    const target = at < 0 ? 0 : at + distance;
    if (target >= all.length && !more.hidden) {
      extend();
      return step(distance);
    }
    if (all[target]) focusCard(all[target]);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const card = event.target.closest(".card");
    const key = event.key.toLowerCase();
    if (key === "/") controls.elements.search.focus();
    else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (!card) return;
    else if (key === "a") mark(card, "accept");
    else if (key === "r") mark(card, "reject");
    else if (key === "u") mark(card, null);
    else if (key === "enter" && event.target === card && card.querySelector("details")) {
      const inner = card.querySelector("details");
      inner.open = !inner.open;
    } else return;
    event.preventDefault();
  });

  list.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (!card || card.tabIndex === 0) return;
    for (const other of list.querySelectorAll('.card[tabindex="0"]')) other.tabIndex = -1;
    card.tabIndex = 0;
  });

  exporter.addEventListener("click", () => {
    const rows = new Map(data.cards.map((card) => [card.id, card]));
    const content = {
      format: "rag4dmc-marks", version: 1, run: data.run || null, run_id: data.run_id || null,
      marks: [...marks].map(([id, verdict]) => {
        const { missing, made } = rows.get(id);
        return { id, mark: verdict, missing, attempt: made.attempt, seed: made.seed, run_id: made.run_id };
      }),
    };
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
    link.download = "marks.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", refresh);
  more.addEventListener("click", extend);
  refresh();
})();
