// Shows the SVG that the kernel drew, and paints the states of the cards on it; handles scrolling, zooming, search, keyboard
// and the side panel. The kernel sends the picture as `svg`, the contents of the side panel as `details`, and the states of
// all cards as `nodes`. Text is always inserted as text, never as HTML. A picture that does not fit can be scrolled. At scale
// 1, the smallest text is 11 px high. At smaller scales, a card shows a symbol and as much of its name as fits, also 11 px high.

const MIN = 0.1, MAX = 3, TALL = 560, LETTER = 6.8;

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

const cut = (text, most) => (text.length > most ? `${text.slice(0, Math.max(0, most - 1)).trimEnd()}…` : text);
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };

// Shortens a text of the picture until it is at most `room` wide. The width of a text that is not displayed is 0.
function squeeze(element, text, room) {
  put(element, text);
  for (let most = text.length, wide; (wide = element.getComputedTextLength()) > room && most > 1;) {
    most = Math.min(most - 1, Math.ceil((most * room) / wide));
    put(element, cut(text, most));
  }
}

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
  const cancel = button(head, "Cancel run", "Cancel the running step and all queued steps", () => model.send({ type: "cancel", id: unique(), run: get("run").id ?? "" }));
  const all = button(head, "Materialize stale", "Bring all assets up to date", () => ask("materialize-outdated", ""), "sw-primary");
  const problem = make(root, "div", "sw-problem");
  problem.setAttribute("role", "alert");
  const body = make(root, "div", "sw-body");
  const frame = make(body, "div", "sw-frame");
  const canvas = make(frame, "div", "sw-canvas");
  const foot = make(frame, "div", "sw-status");
  const said = make(foot, "div", "sw-said");
  said.setAttribute("role", "status");
  const hint = make(foot, "div", "sw-hint", "Select a step to see the reason for its state, or to run it again.");
  const panel = make(body, "section", "sw-panel");
  panel.setAttribute("aria-label", "Selected step");

  const unique = () => `${Date.now()}-${Math.random()}`;

  // The kernel shows `ask` immediately as queued steps, and runs the steps of `go` when it is free.
  function ask(action, key) {
    const id = unique();
    for (const type of ["ask", "go"]) model.send({ type, id, action, key });
  }

  let svg = null, size = [1, 1], k = 1;
  const cards = new Map();

  function draw() {
    const text = get("svg"), at = [canvas.scrollLeft, canvas.scrollTop];
    canvas.replaceChildren();
    cards.clear();
    if (!text) return;
    svg = document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
    size = ["width", "height"].map((side) => Number(svg.getAttribute(side)));
    for (const g of svg.querySelectorAll("g.sw-node")) {
      const part = (name) => g.querySelector(`.sw-${name}`);
      const number = (element, ...names) => names.map((name) => Number(element.getAttribute(name)));
      const name = part("name");
      const at = g.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
      cards.set(g.dataset.key, { g, at, name, full: name.textContent, place: number(name, "x", "y"), size: number(part("card"), "width", "height"), foot: part("foot-text"), summary: part("summary") });
    }
    cards.values().next().value?.g.setAttribute("tabindex", "0");
    canvas.append(svg);
    canvas.style.height = `${Math.min(TALL, Math.max(120, size[1] + 14))}px`;
    scale(k);
    canvas.scrollTo(...at);
  }

  function paint(again = false) {
    const nodes = get("nodes"), groups = get("groups");
    for (const [key, card] of cards) {
      const state = nodes[key];
      if (!state) continue;
      const text = words(state.footer), told = `${state.status} ${text} ${state.summary}`;
      if (card.told === told && !again) continue;
      card.told = told;
      card.symbol = state.symbol;
      card.g.dataset.status = state.status;
      card.g.setAttribute("aria-label", `${key}, ${text}`);
      squeeze(card.summary, state.summary, card.size[0] - 20);
      squeeze(card.foot, `${state.symbol} ${text}`, card.size[0] - 20);
      label(card);
    }
    for (const g of canvas.querySelectorAll(".sw-group")) {
      const text = g.querySelector(".sw-group-text");
      squeeze(text, groups[g.dataset.group], Number(g.querySelector("rect").getAttribute("width")) - 31 - text.previousSibling.getComputedTextLength());
    }
    for (const g of canvas.querySelectorAll(".sw-edge")) g.classList.toggle("sw-flow", nodes[g.dataset.target]?.status === "running");
  }

  function label({ name, full, place, size: [w, h], symbol }) {
    put(name, k < 1 ? cut(`${symbol ?? ""} ${full}`, Math.floor((w * k - 8) / LETTER)) : full);
    const [x, y] = k < 1 ? [5 / k, h / 2 + 4 / k] : place;
    name.setAttribute("x", x);
    name.setAttribute("y", y);
  }

  function scale(to) {
    k = to;
    ["width", "height"].forEach((side, i) => svg?.setAttribute(side, size[i] * k));
    root.style.setProperty("--sw-k", k);
    root.classList.toggle("sw-far", k < 1);
    root.classList.toggle("sw-tiny", k < 0.5);
    root.classList.toggle("sw-dots", k < 0.18);
    cards.forEach(label);
  }

  function fit() {
    scale(Math.max(MIN, Math.min(1, canvas.clientWidth / size[0], canvas.clientHeight / size[1])));
  }

  function zoom(by, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
    const [x, y] = [(canvas.scrollLeft + px) / k, (canvas.scrollTop + py) / k];
    scale(Math.min(MAX, Math.max(MIN, k * by)));
    canvas.scrollTo(x * k - px, y * k - py);
  }

  function reveal({ at, size: side }) {
    const [left, top] = ["Width", "Height"].map((name, i) => {
      const seen = canvas[`client${name}`], from = [canvas.scrollLeft, canvas.scrollTop][i];
      const low = at[i] * k, high = low + side[i] * k;
      return low >= from && high <= from + seen ? from : (low + high - seen) / 2;
    });
    canvas.scrollTo(left, top);
  }

  const on = canvas.addEventListener.bind(canvas);
  let drag = null;
  on("pointerdown", (event) => {
    const bar = event.target === canvas && (event.offsetX >= canvas.clientWidth || event.offsetY >= canvas.clientHeight);
    if (event.button === 0 && !bar) drag = { x: event.clientX, y: event.clientY, left: canvas.scrollLeft, top: canvas.scrollTop, moving: false };
  });
  on("pointermove", (event) => {
    // The browser itself scrolls for touches.
    if (!drag || event.pointerType === "touch") return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moving) {
      if (Math.hypot(dx, dy) < 5) return;
      canvas.setPointerCapture(event.pointerId);
      drag.moving = true;
    }
    canvas.scrollTo(drag.left - dx, drag.top - dy);
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

  // The key Tab reaches one card; an arrow key moves the focus to the nearest card in its direction.
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

  button(panel, "×", "Close", () => select(""), "sw-close").setAttribute("aria-label", "Close");
  const title = make(panel, "h3", "sw-title");
  const what = make(panel, "div", "sw-what");
  const state = make(panel, "div", "sw-state");
  const buttons = make(panel, "div", "sw-buttons");
  const rerun = button(buttons, "↻ Re-run this step", "Run only this step, on the stored values of its inputs", () => ask("rerun", selected()), "sw-primary sw-rerun");
  const materialize = button(buttons, "", "Bring the asset up to date", () => ask("materialize", selected()), "sw-materialize");
  const sections = Object.fromEntries(["Why", "Value", "Description", "Error", "Code"].map((name) => {
    const box = make(panel, "section", `sw-section sw-${name.toLowerCase()}`);
    make(box, "h4", "", name);
    return [name, [box, make(box, ["Error", "Code"].includes(name) ? "pre" : "p")]];
  }));
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
    const opened = chosen && panel.hidden;
    panel.hidden = !chosen;
    if (opened) reveal(cards.get(key));
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
    put(said, run.active ? run.words : run.waiting ? "The request waits until the kernel is free" : get("note"));
    said.hidden = !said.textContent;
    cancel.disabled = !run.active && !run.waiting;
    put(all, `Materialize stale (${counts.outdated ?? 0})`);
    all.disabled = !counts.outdated || Boolean(run.waiting);
    problem.dataset.tone = error.tone ?? "";
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
  // Before the widget is displayed, its elements have no size: paint and scroll when the canvas has got one.
  let seen = false;
  const observer = new ResizeObserver(() => {
    if (seen || !canvas.clientWidth) return;
    seen = true;
    paint(true);
    const start = cards.get(selected()) ?? cards.values().next().value;
    if (start) reveal(start);
  });
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
