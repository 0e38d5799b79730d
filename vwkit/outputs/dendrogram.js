"use strict";
// Cuts the tree where the slider stands: colours, numbers and members follow. Names are taken from
// the page's own elements; the data are numbers only.
const data = JSON.parse(document.getElementById("tree-data").content.textContent);
const leaves = Array.from(document.querySelectorAll(".leaf"));
const paths = Array.from(document.querySelectorAll(".tree path"));
const slider = document.getElementById("similarity");
const line = document.getElementById("cut");
const CLUSTERS = 24, MEMBERS = 24;

function make(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function images(count) {
  return count.toLocaleString("en") + (count === 1 ? " image" : " images");
}

// The highest nodes that lie below the cut, from top to bottom; and leaves that the cut divides.
function groups(cut) {
  const whole = [], divided = [], waiting = [data.heights.length - 1];
  while (waiting.length) {
    const node = waiting.pop();
    if (data.heights[node] <= cut) whole.push(node);
    else if (node < leaves.length) divided.push(node);
    else waiting.push(data.merges[node - leaves.length][1], data.merges[node - leaves.length][0]);
  }
  return [whole, divided];
}

function badge(leaf, text) { leaf.firstChild.firstChild.textContent = text; }

function below(node) {
  const found = [], waiting = [node];
  while (waiting.length) {
    const next = waiting.pop();
    if (next < leaves.length) found.push(next);
    else waiting.push(data.merges[next - leaves.length][1], data.merges[next - leaves.length][0]);
  }
  return found;
}

function paint(step) {
  const [whole, divided] = groups(data.cuts[step]);
  const kinds = new Array(data.heights.length).fill("");
  const clusters = [];
  for (const leaf of leaves) { leaf.className = "leaf"; badge(leaf, "–"); }
  for (const leaf of divided) badge(leaves[leaf], "…");
  for (const node of whole) {
    const own = below(node);
    const count = own.reduce((sum, leaf) => sum + data.counts[leaf], 0);
    if (count < data.min_size) continue;
    const known = step === data.start ? data.labels[own[0]] : -1;
    const number = known >= 0 ? known : clusters.length;
    const kind = "k" + clusters.length % data.colours;  // neighbours differ
    clusters.push({number, count, own, kind});
    const waiting = [node];
    while (waiting.length) {
      const next = waiting.pop();
      kinds[next] = kind;
      if (next >= leaves.length) waiting.push(...data.merges[next - leaves.length]);
    }
    for (const leaf of own) {
      leaves[leaf].className = "leaf " + kind;
      badge(leaves[leaf], number);
    }
  }
  // A line to a part belongs to the part's cluster, the one across to that of both.
  for (const path of paths) path.setAttribute("class", kinds[Number(path.dataset.node)]);
  return [clusters, divided];
}

function tell(step, clusters, divided) {
  const found = data.sizes[step], similarity = data.similarities[step].toFixed(data.digits);
  const several = found.clusters === 1 ? " cluster" : " clusters";
  const alone = found.alone ? ", " + images(found.alone) + " in none" : "";
  document.getElementById("said").textContent =
    images(data.images - found.alone) + " in " + found.clusters.toLocaleString("en") + several + alone;
  document.getElementById("value").textContent = similarity;
  slider.setAttribute("aria-valuetext", "similarity " + similarity);
  const command = document.getElementById("command");
  if (command) command.textContent = "--set clusterer.similarity=" + Number(similarity);
  const rows = found.sizes.map(([size, count]) => {
    const row = make("tr");
    row.append(make("td", size.toLocaleString("en"), "number"), make("td", count.toLocaleString("en"), "number"));
    return row;
  });
  document.querySelector("#sizes tbody").replaceChildren(...rows);
  document.getElementById("more-sizes").textContent =
    found.rest ? "… and " + found.rest.toLocaleString("en") + " smaller clusters." : "";
  document.getElementById("divided").textContent = divided.length
    ? "Here the cut goes through " + divided.length.toLocaleString("en") +
      " of the leaves drawn (…); the numbers count what is inside them, too." : "";
  line.style.left = 100 * (1 - Math.min(1, Math.max(0, data.lines[step]))) + "%";
}

function list(clusters) {
  const largest = clusters.slice().sort((a, b) => b.count - a.count || a.number - b.number);
  const made = largest.slice(0, CLUSTERS).map((cluster) => {
    const box = make("div", undefined, "members");
    box.append(make("h3", "Cluster " + cluster.number + " · " + images(cluster.count), cluster.kind));
    const all = make("ul");
    for (const leaf of cluster.own.slice(0, MEMBERS)) {
      const item = make("li");
      item.append(...Array.from(leaves[leaf].childNodes).slice(1).map((one) => one.cloneNode(true)));
      all.append(item);
    }
    const left = cluster.own.slice(MEMBERS).reduce((sum, leaf) => sum + data.counts[leaf], 0);
    box.append(all);
    if (left) box.append(make("p", "… and " + left.toLocaleString("en") + " more", "note"));
    return box;
  });
  if (largest.length > CLUSTERS)
    made.push(make("p", "… and " + (largest.length - CLUSTERS).toLocaleString("en") + " more clusters of the tree above.", "note"));
  if (!made.length) made.push(make("p", "No cluster at this similarity.", "note"));
  document.getElementById("members").replaceChildren(...made);
}

function show() {
  const step = Number(slider.value);
  const [clusters, divided] = paint(step);
  tell(step, clusters, divided);
  list(clusters);
}

// A page may be opened at a similarity: page.html#0.75
const asked = Number(location.hash.slice(1));
if (location.hash.length > 1 && Number.isFinite(asked)) {
  let best = 0;
  data.similarities.forEach((one, i) => {
    if (Math.abs(one - asked) < Math.abs(data.similarities[best] - asked)) best = i;
  });
  slider.value = best;
}
document.getElementById("controls").hidden = false;
slider.addEventListener("input", show);
document.getElementById("back").addEventListener("click", () => { slider.value = data.start; show(); });
show();
