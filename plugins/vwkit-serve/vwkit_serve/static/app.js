// The page of `vwkit serve`. Everything that comes from the server is put in as text, never as
// markup, and no address but this server's is ever asked.

const $ = (id) => document.getElementById(id);
const main = $("main");
const dialog = $("dialog");
let facts = null;
let upload = null; // {file, url, name, result}: only here; the server forgets it
let shown = null; // {base, query, results}: what the dialog steps through
let turn = 0; // of the view: an answer that comes too late is dropped

// Elements ---------------------------------------------------------------------------------------

function h(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function s(name, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat(9).filter((child) => child != null && child !== false));
  return element;
}

const number = (value) => Number(value).toLocaleString("en");
const many = (count, one, more) => `${number(count)} ${count === 1 ? one : more ?? one + "s"}`;
const itemLink = (item) => `#/item/${encodeURIComponent(item.id)}`;
const picture = (row, kind, size) =>
  `/api/items/${row}/${kind}?size=${size}&v=${encodeURIComponent(facts.version)}`;

function distance(value) {
  return Math.abs(value) < 100 ? value.toFixed(3) : number(Math.round(value));
}

// Asking the server --------------------------------------------------------------------------------

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  if (!answer.ok) {
    let message = `The server answered ${answer.status}.`;
    try {
      message = sentence((await answer.json()).error);
    } catch {
      // an answer that is not ours
    }
    throw new Error(message);
  }
  return answer;
}

const json = async (path, options) => (await ask(path, options)).json();

const sentence = (text) => {
  const said = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(said) ? said : `${said}.`;
};

function complain(error) {
  const alert = $("alert");
  alert.replaceChildren(
    h("span", {}, error.message),
    h("button", { type: "button", onclick: () => (alert.hidden = true) }, "Close"),
  );
  alert.hidden = false;
  alert.scrollIntoView({ block: "nearest" });
}

// Parts --------------------------------------------------------------------------------------------

function card(item, link, says) {
  const image = h("img", { src: picture(item.row, "thumbnail", 320), alt: "", loading: "lazy" });
  const name = h("span", { class: "id", title: item.id }, item.id);
  return h("li", {}, h("a", { href: link }, h("span", { class: "frame" }, image),
    h("span", { class: "says" }, says, name)));
}

function grid(items, link = itemLink, says = () => null) {
  const list = h("ul", { class: "pictures" }, items.map((item) => card(item, link(item), says(item))));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(list), ArrowUp: -columns(list) };
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const next = links[at + step[event.key]];
    if (at >= 0 && next && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      next.focus();
    }
  });
  return list;
}

const columns = (list) => getComputedStyle(list).gridTemplateColumns.split(" ").length;

function heading(text, note) {
  document.title = `${text} · ${facts.name} · vwkit`;
  return [h("h1", { tabindex: "-1" }, text), note && h("p", { class: "note" }, note)];
}

/** A part of a long list and a button for the next one. */
function paged(load, total, draw) {
  const box = h("div", {});
  const button = h("button", { type: "button" }, "Show more");
  const more = h("div", { class: "more" }, button);
  let offset = 0;
  async function next() {
    button.disabled = true;
    try {
      const found = await load(offset);
      offset += found.count;
      draw(box, found);
      more.hidden = offset >= total(found) || found.count === 0;
    } catch (error) {
      complain(error);
    }
    button.disabled = false;
  }
  button.addEventListener("click", next);
  return { element: h("div", {}, box, more), first: next() };
}

// Views --------------------------------------------------------------------------------------------

function dropArea() {
  const input = h("input", { type: "file", accept: "image/*", id: "file",
    onchange: () => input.files.length && take(input.files[0]) });
  return h("div", { class: "drop" }, input,
    h("label", { class: "button primary", for: "file" }, "Choose a picture"),
    h("p", { class: "note" }, "or drop one anywhere on this page, or paste one. " +
      `Up to ${number(Math.floor(facts.max_upload / 1048576))} MiB; it is not stored.`));
}

function home() {
  const parts = heading(facts.can.search ? "Search by picture" : facts.name);
  if (facts.can.search) {
    parts.push(dropArea());
  } else {
    parts.push(h("p", { class: "lead" }, `No search here: ${facts.why_not.search}.`));
  }
  if (facts.samples.length) {
    const title = facts.can.search ? "Or take one of the run’s own" : "Some of its pictures";
    parts.push(h("section", {}, h("h2", {}, title), grid(facts.samples.slice(0, 12))));
  } else {
    parts.push(aboutFacts());
  }
  return parts;
}

function results(base, found) {
  const others = found.results.filter((one) => !one.itself);
  shown = { base, query: found.query, results: others };
  if (!others.length) return h("p", { class: "busy" }, "Nothing was found.");
  return grid(others, (one) => `${base}/match/${one.row}`,
    (one) => [h("b", {}, others.indexOf(one) + 1), ` · ${distance(one.distance)}`]);
}

function resultSection(base, found, load) {
  const section = h("section", {}, h("h2", {}, "Most alike"));
  const where = h("input", { type: "search", id: "where", placeholder: "price < 20 and color == 'red'" });
  const filter = h("form", { class: "tools" }, h("label", { for: "where" }, "Only where"), where,
    h("button", {}, "Filter"), h("span", { class: "note" }, `Known: ${facts.fields.join(", ")}`));
  filter.addEventListener("submit", async (event) => {
    event.preventDefault();
    $("alert").hidden = true;
    try {
      show(await load(25, where.value), 25);
    } catch (error) {
      complain(error);
    }
  });
  function show(next, wanted) {
    row.hidden = next.results.length < wanted || wanted >= 200;
    k = wanted;
    const again = results(base, next);
    body.replaceWith(again);
    body = again;
  }
  let body = results(base, found);
  let k = found.results.length;
  const button = h("button", { type: "button", onclick: more }, "Show more");
  const row = h("div", { class: "more" }, button);
  async function more() {
    button.disabled = true;
    try {
      const wanted = Math.min(200, 2 * k);
      show(await load(wanted, where.value), wanted);
    } catch (error) {
      complain(error);
    }
    button.disabled = false;
  }
  row.hidden = k < 24 || k >= 200;
  section.append(
    h("p", { class: "note" }, `Nearest first, with the ${facts.metric ?? ""} distance. ` +
      `Found in ${found.milliseconds < 10 ? found.milliseconds.toFixed(1) : number(Math.round(found.milliseconds))} ms. ` +
      (facts.can.matches ? "Open one to see which points match." : "Open one to see both side by side.")),
    facts.fields.length ? filter : "", body, row);
  return section;
}

async function itemView(id) {
  const found = facts.can.search && await json(`/api/search?item=${encodeURIComponent(id)}&k=25`);
  const item = await byId(id, found);
  const details = await json(`/api/items/${item.row}`);
  const size = details.width ? `${number(details.width)} × ${number(details.height)} pixels` : null;
  const cluster = details.cluster != null && h("p", { class: "note" },
    h("a", { href: `#/clusters/${details.cluster}` },
      details.cluster < 0 ? "In no cluster" : `In cluster ${details.cluster}`));
  const gone = details.available ? null : "Its file is gone since the run.";
  const metadata = Object.entries(details.metadata);
  const about = h("div", {}, heading(details.id, [size, gone].filter(Boolean).join(". ")), cluster,
    metadata.length ? h("dl", { class: "facts" }, metadata.map(([key, value]) => [h("dt", {}, key),
      h("dd", {}, typeof value === "string" ? value : JSON.stringify(value))])) : null);
  if (!found) {
    return [about, h("img", { class: "large-picture", src: picture(item.row, "image", 1600), alt: details.id }),
      h("p", { class: "note" }, `No search here: ${facts.why_not.search}.`)];
  }
  const query = h("div", { class: "frame" },
    h("img", { src: picture(item.row, "image", 800), alt: "The picture asked for" }));
  const base = itemLink(item);
  return [h("section", { class: "asked" }, query, about),
    resultSection(base, found, (k, where) =>
    json(`/api/search?item=${encodeURIComponent(id)}&k=${k}&where=${encodeURIComponent(where)}`))];
}

async function byId(id, found) {
  const itself = found && found.results.find((one) => one.itself);
  if (itself) return itself;
  const listed = await json(`/api/items?limit=200&skipped=true&q=${encodeURIComponent(id.slice(0, 200))}`);
  const item = listed.items.find((one) => one.id === id);
  if (!item) throw new Error(`No item of this run is named ${id}.`);
  return item;
}

function uploadView() {
  if (!upload) {
    location.replace("#/");
    return [];
  }
  const image = h("img", { src: upload.url, alt: "Your picture" });
  image.addEventListener("error", () => previewed(image), { once: true });
  return [
    h("section", { class: "asked" }, h("div", { class: "frame" }, image),
      h("div", {}, heading(upload.name, "Your picture; only this page holds it."),
        h("a", { class: "button", href: "#/" }, "Take another one"))),
    resultSection("#/upload", upload.result, (k, where) => searched(upload.file, k, where)),
  ];
}

/** Show a picture in a format that the browser does not know (TIFF, say). */
async function previewed(image) {
  const held = upload;
  try {
    const answer = await ask("/api/preview?size=1200", { method: "POST", body: held.file });
    held.url = URL.createObjectURL(await answer.blob());
    if (image instanceof HTMLImageElement) image.src = held.url;
    else image.setAttribute("href", held.url);
  } catch {
    // it was searched with, but cannot be shown
  }
}

function picturesView(query) {
  const input = h("input", { type: "search", value: query, placeholder: "part of a name", id: "q" });
  const form = h("form", { class: "tools", role: "search" },
    h("label", { for: "q" }, "Name contains"), input, h("button", {}, "Filter"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = input.value ? `#/pictures/${encodeURIComponent(input.value)}` : "#/pictures";
  });
  const count = h("p", { class: "note", role: "status" });
  const list = paged(
    async (offset) => {
      const found = await json(`/api/items?offset=${offset}&limit=60&q=${encodeURIComponent(query)}`);
      count.textContent = many(found.total, "picture");
      return { ...found, count: found.items.length };
    },
    (found) => found.total,
    (box, found) => box.append(grid(found.items)),
  );
  return list.first.then(() => [heading("Pictures"), form, h("section", {}, count, list.element)]);
}

function clusterName(cluster) {
  return cluster.number < 0 ? "In no cluster" : `Cluster ${cluster.number}`;
}

async function clustersView() {
  if (!facts.can.clusters) throw new Error(sentence(facts.why_not.clusters));
  const lead = h("p", { class: "note" });
  const list = paged(
    async (offset) => {
      const found = await json(`/api/clusters?offset=${offset}&limit=20&show=6`);
      lead.replaceChildren(`${many(found.total, "cluster")}, the largest first. `,
        found.unclustered ? h("a", { href: "#/clusters/-1" },
          `${many(found.unclustered, "picture")} in none.`) : "");
      return { ...found, count: found.clusters.length };
    },
    (found) => found.total,
    (box, found) => box.append(...found.clusters.map((cluster) => h("section", {},
      h("h2", {}, h("a", { href: `#/clusters/${cluster.number}` }, clusterName(cluster)),
        ` · ${many(cluster.size, "picture")}`), grid(cluster.items)))),
  );
  await list.first;
  return [heading("Clusters"), lead, list.element];
}

async function clusterView(name) {
  let cluster;
  const list = paged(
    async (offset) => {
      cluster = await json(`/api/clusters/${encodeURIComponent(name)}?offset=${offset}&limit=60`);
      return { ...cluster, count: cluster.items.length };
    },
    (found) => found.size,
    (box, found) => box.append(grid(found.items)),
  );
  await list.first;
  if (!cluster) return [h("p", {}, h("a", { href: "#/clusters" }, "All clusters"))];
  return [heading(clusterName(cluster), many(cluster.size, "picture")),
    h("p", {}, h("a", { href: "#/clusters" }, "All clusters")), h("section", {}, list.element)];
}

function patchList(found, large) {
  return found.patches.map((patch) => h("a", { href: itemLink(patch), title: patch.id },
    h("img", { src: patch.image, alt: `Word ${found.word} in ${patch.id}`, class: large && "big" })));
}

async function wordsView() {
  if (!facts.can.words) throw new Error(sentence(facts.why_not.words));
  const lead = h("p", { class: "note" });
  const go = h("input", { type: "number", min: 0, id: "word", inputmode: "numeric", value: "0" });
  const form = h("form", { class: "tools" }, h("label", { for: "word" }, "Word number"), go,
    h("button", {}, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/words/${Number(go.value)}`;
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      json(`/api/words/${entry.target.dataset.word}/patches?limit=8`)
        .then((found) => entry.target.replaceChildren(...patchList(found)))
        .catch(complain);
    }
  }, { rootMargin: "200px" });
  const list = paged(
    async (offset) => {
      const found = await json(`/api/words?offset=${offset}&limit=20`);
      lead.textContent = `${many(found.total, "word")}, ${number(found.used)} of them used, ` +
        `${number(found.occurrences)} times in all; the most frequent first. ` +
        (facts.can.patches ? "The patches are the places nearest to each word’s center." : "");
      go.max = found.total - 1;
      return { ...found, count: found.words.length };
    },
    (found) => found.total,
    (box, found) => box.append(...found.words.map((word) => {
      const patches = h("div", { class: "patches", "data-word": word.word });
      if (facts.can.patches) seen.observe(patches);
      return h("div", { class: "word" },
        h("h3", {}, h("a", { href: `#/words/${word.word}` }, `Word ${word.word}`), ` · ${many(word.count, "time")}`),
        facts.can.patches && patches);
    })),
  );
  await list.first;
  return [heading("Visual words"), lead,
    !facts.can.patches && h("p", { class: "note" }, sentence(facts.why_not.patches)),
    form, h("section", {}, list.element)];
}

async function wordView(name) {
  const word = Number(name);
  const back = h("p", {}, h("a", { href: "#/words" }, "All words"));
  if (!facts.can.patches) return [heading(`Word ${word}`), back, h("p", {}, sentence(facts.why_not.patches))];
  const found = await json(`/api/words/${word}/patches?limit=48`);
  return [heading(`Word ${word}`, `It occurs ${many(found.count, "time")}; these places are nearest to its center.`),
    back, h("section", {}, h("div", { class: "patches large" }, patchList(found, true)),
      found.patches.length ? null : h("p", { class: "note" }, "No picture shows it."))];
}

function aboutFacts() {
  const rows = [["inputs", `${number(facts.items)}, ${number(facts.usable)} usable`],
    ["made of", facts.pipeline.join(" → ") || "–"],
    ...Object.entries(facts.counts).filter(([key]) => !["items", "ok"].includes(key))
      .map(([key, value]) => [key, number(value)]),
    ...Object.entries(facts.scores ?? {}).map(([key, value]) =>
      [key, Number.isInteger(value) ? number(value) : value.toFixed(3)]),
    facts.metric && ["distance", facts.metric], ["vwkit", facts.vwkit]].filter(Boolean);
  const cannot = Object.entries(facts.why_not).map(([key, why]) => h("li", {}, h("b", {}, key), ": ", sentence(why)));
  return h("section", {}, h("h2", {}, "The run"),
    h("dl", { class: "facts" }, rows.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
    cannot.length ? [h("h3", {}, "What it cannot do"), h("ul", {}, cannot)] : null);
}

const runView = () => [heading(facts.name), aboutFacts()];

// The dialog: two pictures and what they share -----------------------------------------------------

async function openMatch(base, row) {
  const at = shown ? shown.results.findIndex((one) => one.row === row) : -1;
  if (!shown || shown.base !== base || at < 0) return location.replace(base);
  const found = shown.results[at];
  const mine = ++turn;
  const move = (to) => () => location.replace(`${base}/match/${shown.results[to].row}`);
  const says = h("p", { class: "note", role: "status" }, facts.can.matches ? "Comparing …" : sentence(facts.why_not.matches));
  const view = s("svg", { class: "view", role: "img", "aria-label": "Both pictures side by side" });
  const lines = h("input", { type: "checkbox", checked: true, onchange: () => view.classList.toggle("bare", !lines.checked) });
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const steps = h("div", { class: "steps" },
    h("button", { type: "button", "aria-label": "Previous result", disabled: at === 0, onclick: move(at - 1) }, "←"),
    h("button", { type: "button", "aria-label": "Next result", disabled: at === shown.results.length - 1, onclick: move(at + 1) }, "→"),
    close);
  const had = document.activeElement?.getAttribute("aria-label");
  dialog.replaceChildren(
    h("div", { class: "sheet-head" },
      h("h2", { id: "dialog-title" }, `${at + 1} of ${shown.results.length}: ${found.id}`), steps),
    h("div", { class: "sheet" }, view, h("div", { class: "tools" },
      h("div", {}, h("p", { class: "note" }, `Distance ${distance(found.distance)}`), says),
      facts.can.matches && h("label", { class: "switch" }, lines, "Lines"),
      h("a", { class: "button", href: itemLink(found), onclick: () => dialog.close("go") }, "Search with this one"))));
  dialog.onkeydown = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight" && at + 1 < shown.results.length) move(at + 1)();
    else if (event.key === "ArrowLeft" && at > 0) move(at - 1)();
    else return;
    event.preventDefault();
  };
  dialog.onclose = () => {
    if (dialog.returnValue !== "go" && location.hash.startsWith(`${base}/match/`)) location.hash = base;
    dialog.returnValue = "";
  };
  if (!dialog.open) dialog.showModal();
  const again = had && steps.querySelector(`[aria-label="${had}"]:not(:disabled)`);
  (again ?? close).focus({ preventScroll: true });
  const query = shown.query == null ? { url: upload.url } : await byId(shown.query, null).catch(() => null);
  if (mine !== turn) return;
  const source = query?.url ?? (query ? picture(query.row, "image", 1200) : "");
  const target = picture(row, "image", 1200);
  try {
    const [matched, first] = await Promise.all([compared(row), measured(source, query)]);
    if (mine === turn) draw(view, source, target, first, found, matched, says);
  } catch (error) {
    if (mine === turn) says.textContent = error.message;
  }
}

async function compared(row) {
  if (!facts.can.matches) return null;
  if (shown.query != null) return json(`/api/matches?query=${encodeURIComponent(shown.query)}&row=${row}`);
  return json(`/api/matches?row=${row}`, { method: "POST", body: upload.file });
}

/** The size of the query's picture; the server knows it only where it compares points. */
function measured(source, query) {
  if (query?.width) return { width: query.width, height: query.height };
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => resolve({ width: 4, height: 3 });
    image.src = source;
  });
}

function draw(view, source, target, first, found, matched, says) {
  const a = matched ? { width: matched.width, height: matched.height } : first;
  const b = matched ? { width: matched.item_width, height: matched.item_height }
    : { width: found.width ?? 4, height: found.height ?? 3 };
  const below = stacked(a, b);
  // Both get the same height, or where one is above the other, the same width.
  const unit = 600;
  const fit = (one) => (below ? unit / one.width : unit / one.height);
  const [fa, fb] = [fit(a), fit(b)];
  const [wa, ha, wb, hb] = [a.width * fa, a.height * fa, b.width * fb, b.height * fb];
  const gap = 12;
  const [x, y] = below ? [0, ha + gap] : [wa + gap, 0];
  view.setAttribute("viewBox", below ? `0 0 ${unit} ${ha + gap + hb}` : `0 0 ${wa + gap + wb} ${unit}`);
  const asked = s("image", { href: source, x: 0, y: 0, width: wa, height: ha, preserveAspectRatio: "none" });
  if (shown.query == null) asked.addEventListener("error", () => previewed(asked), { once: true });
  view.replaceChildren(asked,
    s("image", { href: target, x, y, width: wb, height: hb, preserveAspectRatio: "none" }));
  if (!matched) return;
  view.classList.toggle("weak", !matched.verified);
  const drawn = matched.lines.slice(0, matched.verified ? 120 : 40);
  drawn.forEach((line, i) => {
    const [x1, y1, x2, y2] = [(line.x1 + 0.5) * fa, (line.y1 + 0.5) * fa, x + (line.x2 + 0.5) * fb, y + (line.y2 + 0.5) * fb];
    view.append(s("g", { class: `c${i % 6}` }, s("line", { x1, y1, x2, y2 }),
      s("circle", { cx: x1, cy: y1, r: 4 }), s("circle", { cx: x2, cy: y2, r: 4 }),
      line.word == null ? null : s("title", {}, `word ${line.word}`)));
  });
  const shared = matched.by === "words" ? "share a visual word" : "are each other’s nearest";
  if (matched.verified) {
    says.textContent = `${many(matched.total, "pair")} of points ${shared} and agree on one view` +
      (matched.total > drawn.length ? `; the best ${drawn.length} are drawn.` : ".");
  } else if (matched.total) {
    says.textContent = `${many(matched.total, "pair")} of points ${shared}, but too few agree on one view` +
      (matched.total > drawn.length ? `; ${drawn.length} are drawn, dashed.` : "; drawn dashed.");
  } else {
    says.textContent = "No points of the two pictures match.";
  }
}

/** Whether two pictures are larger above each other than side by side, on this screen. */
function stacked(a, b) {
  const wide = a.width / a.height + b.width / b.height; // of both at height 1
  const tall = a.height / a.width + b.height / b.width; // of both at width 1
  const [width, height] = [Math.min(1200, window.innerWidth - 40), 0.66 * window.innerHeight];
  const side = Math.min(width / wide, height); // the height of each
  const above = Math.min(height / tall, width); // the width of each
  return above * above * tall > side * side * wide;
}

function closeDialog() {
  if (dialog.open) dialog.close();
}

// Taking a picture ---------------------------------------------------------------------------------

const searched = (file, k, where = "") =>
  json(`/api/search?k=${k}&where=${encodeURIComponent(where)}`, { method: "POST", body: file });

async function take(file) {
  $("alert").hidden = true;
  if (!facts?.can.search) return complain(new Error(`No search here: ${facts?.why_not.search}.`));
  if (file.size > facts.max_upload) {
    return complain(new Error(`${file.name} has ${number(file.size)} bytes; this server takes up to ${number(facts.max_upload)}.`));
  }
  busy(true);
  try {
    const result = await searched(file, 24);
    if (upload) URL.revokeObjectURL(upload.url);
    upload = { file, result, name: file.name || "pasted picture", url: URL.createObjectURL(file) };
    if (location.hash === "#/upload") await route();
    else location.hash = "#/upload";
  } catch (error) {
    complain(error);
  }
  busy(false);
}

function busy(on) {
  document.body.setAttribute("aria-busy", on);
  const label = document.querySelector(".drop label");
  if (label) label.textContent = on ? "Searching …" : "Choose a picture";
}

function dropped(transfer) {
  const file = [...(transfer?.files ?? [])][0];
  if (file) take(file);
  else complain(new Error("That was no file; save the picture and drop the file."));
}

let inside = 0;
window.addEventListener("dragenter", () => { inside += 1; document.body.classList.add("over"); });
window.addEventListener("dragleave", () => { inside -= 1; if (inside <= 0) document.body.classList.remove("over"); });
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("over");
  dropped(event.dataTransfer);
});
window.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) {
    event.preventDefault();
    dropped(event.clipboardData);
  }
});

// Where we are -------------------------------------------------------------------------------------

const TABS = [["#/", "Search", () => facts.can.search], ["#/pictures", "Pictures", () => facts.usable > 0 && facts.images],
  ["#/clusters", "Clusters", () => facts.can.clusters], ["#/words", "Words", () => facts.can.words],
  ["#/run", "Run", () => true]];

let place = null; // the view on the page, without the dialog

async function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const match = parts.at(-2) === "match" ? Number(parts.at(-1)) : null;
  const base = match == null ? location.hash || "#/" : location.hash.replace(/\/match\/\d+$/, "");
  if (match == null) closeDialog();
  if (place !== base || base === "#/upload" && match == null) {
    place = base;
    await show(parts);
  }
  if (match != null && place === base) await openMatch(base, match);
}

async function show([name, argument]) {
  const mine = ++turn;
  $("alert").hidden = true;
  const views = { "": home, item: () => itemView(argument), upload: uploadView,
    pictures: () => picturesView(argument ?? ""), run: runView,
    clusters: () => (argument ? clusterView(argument) : clustersView()),
    words: () => (argument ? wordView(argument) : wordsView()) };
  nav(name);
  const slow = setTimeout(() => mine === turn && main.replaceChildren(h("p", { class: "busy" }, "One moment …")), 300);
  let parts;
  try {
    const view = views[name];
    if (!view) throw new Error("There is no such view.");
    parts = await view();
  } catch (error) {
    parts = [h("h1", { tabindex: "-1" }, "That did not work"), h("p", { role: "alert" }, error.message),
      h("p", {}, h("a", { href: "#/" }, "Back to the start"))];
  }
  clearTimeout(slow);
  if (mine !== turn) return;
  const first = place != null && main.dataset.shown;
  main.replaceChildren(...parts.flat(9).filter(Boolean));
  main.dataset.shown = "yes";
  window.scrollTo(0, 0);
  if (first) main.querySelector("h1")?.focus({ preventScroll: true });
}

function nav(name) {
  const current = { item: "#/", upload: "#/", "": "#/" }[name] ?? `#/${name}`;
  $("nav").replaceChildren(...TABS.filter(([, , there]) => there()).map(([href, text]) =>
    h("a", { href, "aria-current": href === current && "page" }, text)));
}

async function begin() {
  try {
    facts = await json("/api/run");
  } catch (error) {
    return complain(error);
  }
  $("run").textContent = facts.name;
  window.addEventListener("hashchange", route);
  await route();
  setInterval(watch, 15000);
}

/** Notice that the run was made again. */
async function watch() {
  if (document.hidden) return;
  const now = await json("/api/run").catch(() => null);
  const notice = $("notice");
  if (!now) return;
  const changed = now.version !== facts.version;
  notice.hidden = !changed && !now.notice;
  notice.replaceChildren(changed ? "This run was made again. " : now.notice ?? "",
    changed ? h("a", { href: "", onclick: () => location.reload() }, "Load it") : "");
}

begin();
