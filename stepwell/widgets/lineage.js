// Paints states on the SVG that the kernel drew; pan, zoom, find, keyboard, side panel. Structure comes as `svg` and
// `details`, states as `nodes`, always all of them. Text goes in as text, never as HTML.

const FOOT = 34, MIN = 0.08, MAX = 3;

function make(parent, tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

function button(parent, text, label, action, more = "") {
  const element = make(parent, "button", `sw-button ${more}`, text);
  element.type = "button";
  element.title = label;
  element.addEventListener("click", action);
  return element;
}

function span(from) {
  const seconds = Math.max(0, Date.now() / 1000 - from);
  const [unit, length] = [["d", 86400], ["h", 3600], ["min", 60]].find(([, least]) => seconds >= least) ?? ["s", 1];
  return `${Math.floor(seconds / length)} ${unit}`;
}

const words = (footer) => footer.map((part) => (typeof part === "string" ? part : part.at ? `${span(part.at)} ago`.replace(/^[0-4] s ago/, "just now") : span(part.since))).join(" · ");

const cut = (text) => (text.length > FOOT ? `${text.slice(0, FOOT - 1).trimEnd()}…` : text);
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };

function render({ model, el }) {
  const get = (name) => model.get(name);
  const root = make(el, "div", "sw-live");
  root.dataset.lmSuppressShortcuts = "true";
  const head = make(root, "div", "sw-head");
  make(head, "strong", "", "Lineage");
  const chips = make(head, "span", "sw-counts");
  const find = make(head, "input", "sw-find");
  find.type = "search";
  find.placeholder = "Find…";
  find.setAttribute("aria-label", "Find a step");
  button(head, "−", "Zoom out", () => zoom(1 / 1.25));
  button(head, "+", "Zoom in", () => zoom(1.25));
  button(head, "Fit", "Show the whole picture", () => fit());
  const cancel = button(head, "Cancel run", "Stop the run and forget what is queued", () => model.send({ type: "cancel" }));
  const all = button(head, "Materialize stale", "Bring every asset up to date", () => ask("materialize-outdated", ""), "sw-primary");
  const body = make(root, "div", "sw-body");
  const frame = make(body, "div", "sw-frame");
  const canvas = make(frame, "div", "sw-canvas");
  const said = make(frame, "div", "sw-said");
  said.setAttribute("role", "status");
  const panel = make(body, "section", "sw-panel");
  panel.setAttribute("aria-label", "Selected step");

  // `ask` is shown at once, `go` is run when the kernel is free.
  function ask(action, key) {
    const id = `${Date.now()}-${Math.random()}`;
    for (const type of ["ask", "go"]) model.send({ type, id, action, key });
  }

  let svg = null, size = [1, 1], view = { x: 0, y: 0, k: 1 }, moved = false;
  const cards = new Map();

  function draw() {
    const text = get("svg");
    canvas.replaceChildren();
    cards.clear();
    if (!text) return;
    svg = document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
    size = ["width", "height"].map((side) => Number(svg.getAttribute(side)));
    for (const side of ["width", "height"]) svg.setAttribute(side, "100%");
    for (const g of svg.querySelectorAll("g.sw-node")) {
      const part = (name) => g.querySelector(`.sw-${name}`);
      const at = g.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
      cards.set(g.dataset.key, { g, at, foot: part("foot-text"), summary: part("summary") });
    }
    cards.values().next().value?.g.setAttribute("tabindex", "0");
    canvas.append(svg);
    moved ? look() : fit();
  }

  function paint() {
    const nodes = get("nodes"), groups = get("groups");
    for (const [key, card] of cards) {
      const state = nodes[key];
      if (!state) continue;
      const text = words(state.footer);
      put(card.summary, cut(state.summary));
      if (card.text === text && card.g.dataset.status === state.status) continue;
      card.text = text;
      card.g.dataset.status = state.status;
      put(card.foot, `${state.symbol} ${cut(text)}`);
      card.g.setAttribute("aria-label", `${key}, ${text}`);
    }
    for (const g of canvas.querySelectorAll(".sw-group")) put(g.querySelector(".sw-group-text"), groups[g.dataset.group]);
    for (const g of canvas.querySelectorAll(".sw-edge")) g.classList.toggle("sw-flow", nodes[g.dataset.target]?.status === "running");
  }

  function look() {
    svg?.setAttribute("viewBox", `${view.x} ${view.y} ${canvas.clientWidth / view.k} ${canvas.clientHeight / view.k}`);
  }

  function fit() {
    const w = canvas.clientWidth;
    if (!w) return;
    const wide = Math.min(1, w / size[0]), h = Math.min(560, Math.max(280, size[1] * wide));
    canvas.style.height = `${h}px`;
    const k = Math.max(MIN, Math.min(wide, h / size[1]));
    view = { k, x: Math.min(0, (size[0] - w / k) / 2), y: Math.min(0, (size[1] - h / k) / 2) };
    moved = false;
    look();
  }

  function zoom(by, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
    const k = Math.min(MAX, Math.max(MIN, view.k * by));
    view = { k, x: view.x + px / view.k - px / k, y: view.y + py / view.k - py / k };
    moved = true;
    look();
  }

  function reveal(card) {
    const box = card.g.getBoundingClientRect(), all = canvas.getBoundingClientRect();
    if (box.left >= all.left && box.right <= all.right && box.top >= all.top && box.bottom <= all.bottom) return;
    const { k } = view;
    view = { k, x: card.at[0] + 107 - canvas.clientWidth / k / 2, y: card.at[1] + 37 - canvas.clientHeight / k / 2 };
    moved = true;
    look();
  }

  const on = canvas.addEventListener.bind(canvas);
  let drag = null;
  on("pointerdown", (event) => {
    if (event.button === 0) drag = { x: event.clientX, y: event.clientY, from: { ...view }, moving: false };
  });
  on("pointermove", (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moving) {
      if (Math.hypot(dx, dy) < 5) return;
      canvas.setPointerCapture(event.pointerId);
    }
    drag.moving = moved = true;
    view = { ...view, x: drag.from.x - dx / view.k, y: drag.from.y - dy / view.k };
    look();
  });
  on("pointercancel", () => { drag = null; });
  on("pointerup", (event) => {
    const g = drag && !drag.moving && event.target.closest("g.sw-node");
    drag = null;
    if (g) select(g.dataset.key);
  });
  on("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  // One card can be reached by Tab; the arrows go to the nearest one that way.
  function focus(card) {
    for (const other of cards.values()) other.g.setAttribute("tabindex", other === card ? "0" : "-1");
    card.g.focus({ preventScroll: true });
    reveal(card);
  }

  on("keydown", (event) => {
    const here = cards.get(event.target.closest("g.sw-node")?.dataset.key);
    if (!here) return;
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (way) {
      let best = null, least = Infinity;
      for (const card of cards.values()) {
        const dx = card.at[0] - here.at[0], dy = card.at[1] - here.at[1];
        const along = dx * way[0] + dy * way[1], far = along + 2 * Math.abs(dx * way[1] + dy * way[0]);
        if (along > 1 && far < least) [best, least] = [card, far];
      }
      if (best) focus(best);
    } else if (event.key === "Enter" || event.key === " ") select(here.g.dataset.key);
    else if (event.key === "Escape") select("");
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function search() {
    const text = find.value.trim().toLowerCase();
    return [...cards].filter(([key, { g }]) => !g.classList.toggle("sw-dim", !key.toLowerCase().includes(text)));
  }
  find.addEventListener("input", search);
  find.addEventListener("keydown", (event) => {
    const hits = search();
    if (event.key !== "Enter" || !hits.length) return;
    select(hits[0][0]);
    focus(hits[0][1]);
  });

  const title = make(panel, "h3", "sw-title");
  const what = make(panel, "div", "sw-what");
  const state = make(panel, "div", "sw-state");
  const buttons = make(panel, "div", "sw-buttons");
  const rerun = button(buttons, "↻ Re-run this step", "Run only this step, on the stored values of its inputs", () => ask("rerun", selected()), "sw-primary sw-rerun");
  const materialize = button(buttons, "", "Bring the asset up to date", () => ask("materialize", selected()), "sw-materialize");
  const problem = make(panel, "div", "sw-problem");
  problem.setAttribute("role", "alert");
  const sections = Object.fromEntries(["Why", "Value", "Description", "Error", "Code"].map((name) => {
    const box = make(panel, "section", `sw-section sw-${name.toLowerCase()}`);
    make(box, "h4", "", name);
    return [name, [box, make(box, ["Error", "Code"].includes(name) ? "pre" : "p")]];
  }));
  const hint = make(panel, "p", "sw-hint", "Select a step to see what it is and why it is in its state, and to run it again.");

  const selected = () => get("selection");

  function select(key) {
    model.set("selection", key);
    model.save_changes();
  }

  function fill() {
    const key = selected(), node = get("nodes")[key], detail = get("details")[key];
    for (const [name, card] of cards) {
      card.g.classList.toggle("sw-selected", name === key);
      card.g.setAttribute("aria-pressed", String(name === key));
    }
    const chosen = Boolean(node && detail);
    hint.hidden = chosen;
    for (const part of [title, what, state, buttons]) part.hidden = !chosen;
    put(title, key);
    put(what, detail?.what ?? "");
    state.dataset.status = node?.status;
    put(state, chosen ? `${node.symbol} ${words(node.footer)}` : "");
    rerun.hidden = materialize.hidden = !detail?.step;
    rerun.disabled = materialize.disabled = ["queued", "running"].includes(node?.status);
    put(materialize, `Materialize ${detail?.parent ?? ""}`.trim());
    const text = {
      Why: node?.reason, Value: node?.summary, Description: detail?.description,
      Error: node?.status === "failed" && (node.traceback || node.error), Code: detail?.code,
    };
    for (const [name, [box, place]] of Object.entries(sections)) {
      box.hidden = !text[name];
      put(place, text[name] || "");
    }
  }

  function header() {
    const counts = get("counts"), run = get("run"), error = get("problem");
    chips.replaceChildren();
    make(chips, "span", "sw-chip-count", `${counts.steps ?? 0} step${counts.steps === 1 ? "" : "s"}`);
    for (const [status, text] of counts.chips ?? []) make(chips, "span", "sw-chip-count", text).dataset.status = status;
    put(said, run.active ? run.words : run.waiting ? "Waits until the kernel is free" : get("note"));
    said.hidden = !said.textContent;
    cancel.disabled = !run.active && !run.waiting;
    put(all, `Materialize stale (${counts.outdated ?? 0})`);
    all.disabled = !counts.outdated || Boolean(run.waiting);
    problem.hidden = !error.title;
    problem.replaceChildren();
    if (!error.title) return;
    make(problem, "strong", "", error.title);
    make(problem, "pre", "", error.text);
    button(problem, "Dismiss", "", () => { model.set("problem", {}); model.save_changes(); });
  }

  const events = { "change:svg": () => { draw(); paint(); search(); fill(); }, "change:nodes": () => { paint(); fill(); }, "change:details": fill, "change:selection": fill };
  for (const name of ["counts", "run", "problem", "note"]) events[`change:${name}`] = header;
  for (const [name, react] of Object.entries(events)) model.on(name, react);
  const observer = new ResizeObserver(() => (moved ? look() : fit()));
  observer.observe(canvas);
  const clock = setInterval(() => { paint(); fill(); }, 1000);
  draw();
  paint();
  fill();
  header();
  return () => {
    clearInterval(clock);
    observer.disconnect();
    for (const [name, react] of Object.entries(events)) model.off(name, react);
  };
}

export default { render };
