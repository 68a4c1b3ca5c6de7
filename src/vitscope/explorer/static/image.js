// A picture's page: maps, the patch under the pointer, and features switched off.

import { takeDrops } from "./drop.js";
import {
  currentGamma, decimal, element, featurePath, getBytes, getJson, groupChip, onGamma, pageData, percent, post, readColumns, run, typing, whole,
} from "./frame.js";
import { amounts, paint, paintLegend, scopes } from "./scale.js";

const byId = (id) => document.getElementById(id);
const { path, grid } = pageData();
const base = `/${run}/${path}`;
const frame = byId("patches");
const off = new Set();
let held = false, patch = null, change = null, seen = null, cds = null;

takeDrops();
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  const go = { ArrowLeft: byId("previous")?.href, ArrowRight: byId("next")?.href, t: `/${run}/` }[event.key];
  if (go) { event.preventDefault(); location.href = go; }
});

const canvas = element("canvas", { className: "map" });
const rings = element("div", { className: "rings" });
const cursor = element("div", { className: "cursor", hidden: true });
frame.append(canvas, rings, cursor);

// -- maps

function chosenMap() { return document.querySelector('input[name="map"]:checked').value; }

function showMap() {
  const name = chosenMap();
  const values = { norm: seen.norms, awcds: seen.awcds, active: seen.n_active, change }[name];
  const legend = byId("legend");
  canvas.hidden = !values;
  legend.replaceChildren();
  if (name === "change" && change === null) legend.textContent = "nothing is switched off yet";
  if (!values) return;
  const scale = name === "awcds" ? scopes(values) : amounts(values);
  paint(canvas, grid, values, scale);
  const bar = element("canvas", {});
  paintLegend(bar, scale);
  const digits = name === "active" ? 0 : name === "norm" ? 1 : 3;
  const text = {
    norm: "L2 norm", awcds: "awCDS", active: "active features", change: "share of the token's length that is taken away or put in",
  }[name];
  legend.append(decimal(scale.low, digits), bar, decimal(scale.high, digits), element("span", { className: "muted", textContent: ` ${text}, on this picture` }));
}

function showRings() {
  rings.replaceChildren();
  if (!byId("outliers").checked) return;
  seen.norms.forEach((norm, i) => {
    if (!(norm > seen.tau)) return;
    const ring = element("i", {});
    ring.style.left = `${100 * (i % grid) / grid}%`;
    ring.style.top = `${100 * Math.floor(i / grid) / grid}%`;
    ring.style.width = ring.style.height = `${100 / grid}%`;
    rings.append(ring);
  });
}

// -- the patch under the pointer

function pointAt(index) {
  patch = index;
  cursor.hidden = false;
  cursor.style.left = `${100 * (index % grid) / grid}%`;
  cursor.style.top = `${100 * Math.floor(index / grid) / grid}%`;
  cursor.style.width = cursor.style.height = `${100 / grid}%`;
  showPatch();
}

function showPatch() {
  if (patch === null) return;
  const [first, last] = seen.offsets.slice(patch, patch + 2);
  const n = seen.n_active[patch], listed = last - first;
  const awcds = seen.awcds[patch];
  byId("patch-text").textContent = `Row ${Math.floor(patch / grid) + 1}, column ${patch % grid + 1}${held ? " (held)" : ""}: norm ${decimal(seen.norms[patch], 1)}`
    + `${seen.norms[patch] > seen.tau ? ", an outlier" : ""}, awCDS ${awcds === null ? "–" : decimal(awcds)}, `
    + `${whole(n)} active feature${n === 1 ? "" : "s"}${listed < n ? `, the strongest ${listed} listed` : ""}.`;
  const rows = [];
  for (let i = first; i < last; i += 1) rows.push(featureRow(seen.features[i], seen.values[i]));
  byId("on-patch").tBodies[0].replaceChildren(...rows);
}

function featureRow(feature, value) {
  const box = element("input", { type: "checkbox", checked: off.has(feature) });
  box.setAttribute("aria-label", `switch off feature ${feature}`);
  box.addEventListener("change", () => { if (box.checked) off.add(feature); else off.delete(feature); removed(); });
  return element("tr", {}, element("td", {}, box), element("td", {}, element("a", { href: featurePath(feature), textContent: String(feature) })),
    element("td", { textContent: decimal(value, 2) }), element("td", { textContent: decimal(cds[feature]) }), element("td", {}, groupChip(cds[feature])));
}

function under(event) {
  const box = frame.getBoundingClientRect();
  const [column, row] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((share) => Math.min(grid - 1, Math.max(0, Math.floor(share * grid))));
  return row * grid + column;
}

frame.addEventListener("pointermove", (event) => { if (seen && !held && under(event) !== patch) pointAt(under(event)); });
frame.addEventListener("click", (event) => {
  if (!seen) return;
  const index = under(event);
  held = !(held && index === patch);
  cursor.classList.toggle("held", held);
  pointAt(index);
});
frame.addEventListener("keydown", (event) => {
  if (!seen) return;
  const at = patch ?? 0, row = Math.floor(at / grid), column = at % grid;
  const to = { ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column] }[event.key];
  if (to) {
    event.preventDefault();
    const [r, c] = patch === null ? [0, 0] : to.map((one) => Math.min(grid - 1, Math.max(0, one)));
    pointAt(r * grid + c);
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    held = !held;
    cursor.classList.toggle("held", held);
    showPatch();
  }
});

// -- removal

let asked = 0;

async function removed() {
  byId("off").replaceChildren(...[...off].sort((a, b) => a - b).map((feature) => {
    const chip = element("button", { type: "button", textContent: `${feature} ×` });
    chip.setAttribute("aria-label", `switch feature ${feature} on again`);
    chip.addEventListener("click", () => { off.delete(feature); removed(); });
    return element("li", {}, chip);
  }));
  showPatch();
  const mine = asked += 1;
  const wanted = { features: [...off], group: byId("group").value, gamma: currentGamma(), keep_error: byId("keep-error").checked };
  try {
    const found = await post(`${base}/remove`, wanted);
    if (mine === asked) showRemoval(found);
  } catch (error) {
    if (mine === asked) byId("removal-text").textContent = error.message;
  }
}

function showRemoval(found) {
  change = found.mean_change > 0 ? found.change : null;
  const [top, then] = [found.before[0], found.after[0]];
  byId("removal-text").textContent = found.n_removed === 0 ? "Nothing is switched off." : `${whole(found.n_removed)} features off, ${whole(found.n_active_removed)} of the ${whole(found.n_active)} that are active on this picture.`
    + (top === undefined ? "" : top.name === then.name ? ` Prediction stays ${top.name}, confidence ${percent(top.probability)} to ${percent(then.probability)}.`
      : ` Prediction changes from ${top.name} (${percent(top.probability)}) to ${then.name} (${percent(then.probability)}).`);
  const { with: whole_, without } = found.reconstruction;
  const lines = [
    ["FVU of the reconstruction", decimal(whole_.fvu), decimal(without.fvu), "about the mean of this picture's tokens"],
    ["cosine with the tokens", decimal(whole_.cosine), decimal(without.cosine), "mean over patches"],
    ["change of a token", "0 %", percent(found.mean_change), "share of its length, mean over patches"],
    ["cosine of the image embedding", "1.000", decimal(found.pooled_cosine), "with that of the untouched picture"],
  ];
  byId("figures").tBodies[0].replaceChildren(...lines.map(([text, before, after, title]) => element("tr", { title }, element("th", { scope: "row", textContent: text }), element("td", { textContent: before }), element("td", { textContent: after }))));
  showPrediction(found.before, found.after);
  showMap();
}

function showPrediction(before, after) {
  const place = byId("prediction");
  if (before.length === 0) { place.textContent = `None: ${seen.no_text}.`; return; }
  const list = (title, found) => element("div", {}, element("h4", { textContent: title }), element("ol", { className: "bars" }, ...found.map((one) => {
    const bar = element("i", {});
    bar.style.width = `${100 * one.probability}%`;
    return element("li", {}, bar, element("span", { textContent: one.name }), element("b", { textContent: percent(one.probability) }));
  })));
  place.replaceChildren(list("with all", before), list("without", after));
}

byId("removal").addEventListener("change", removed);
byId("removal").addEventListener("submit", (event) => event.preventDefault());
byId("removal").addEventListener("reset", () => { off.clear(); setTimeout(removed); });
for (const input of document.querySelectorAll('input[name="map"]')) input.addEventListener("change", () => seen && showMap());
byId("outliers").addEventListener("change", () => seen && showRings());

// -- start

try {
  const [found, table] = await Promise.all([getJson(`${base}/tokens`), getBytes(`/${run}/columns`).then(readColumns)]);
  seen = found;
  cds = table.columns.cds;
  const mean = seen.awcds.filter((value) => value !== null);
  byId("summary").textContent = `${whole(seen.n_outliers)} of ${whole(seen.norms.length)} patches are outliers (norm above τ = ${Number(seen.tau.toPrecision(4))}) · mean awCDS ${decimal(mean.reduce((a, b) => a + b, 0) / mean.length)}`
    + (seen.prediction.length > 0 ? ` · ${seen.prediction[0].name}, ${percent(seen.prediction[0].probability)}` : "");
  showMap();
  showRings();
  onGamma(showPatch);
  await removed();
  document.body.dataset.ready = "yes";
} catch (error) {
  byId("summary").textContent = error.message;
}
