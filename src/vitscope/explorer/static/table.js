// The dictionary: table, filters, histogram and γ.

import {
  currentGamma, decimal, element, featurePath, getBytes, groupChip, groupOf, onGamma, percent, post, readColumns, run,
  saved, setGamma, typing, whole,
} from "./frame.js";
import { Histogram } from "./histogram.js";
import { Rows } from "./rows.js";

const byId = (id) => document.getElementById(id);
const GROUPS = ["low", "high", "unscored"];
const state = new URLSearchParams(location.search);

const { n, labels, columns } = readColumns(await getBytes(`/${run}/columns`));
const folded = labels.map((label) => label.toLocaleLowerCase());
const everything = Uint32Array.from({ length: n }, (_, i) => i);

function numeric(key, text, title, write, downFirst = true) {
  return { key, text, title, numeric: true, downFirst, value: (row) => columns[key][row], cell: (row) => write(columns[key][row]) };
}

const shown = [
  { key: "feature", text: "feature", numeric: true, value: (row) => row,
    cell: (row) => element("a", { href: featurePath(row), textContent: String(row), tabIndex: -1 }) },
  { key: "group", text: "group", value: (row) => GROUPS.indexOf(groupOf(columns.cds[row])), cell: (row) => groupChip(columns.cds[row]) },
  { ...numeric("cds", "CDS", "Contextual Dependency Score, ± its standard error: 0 stays on its content, 1 moves as far as it can", decimal, false), cell: scoreOf },
  { key: "label", text: "commonest class", title: "of its top images, and the share of them that are of it", numeric: false,
    value: (row) => (columns.label[row] < 0 ? NaN : columns.label[row]), cell: labelOf },
  numeric("density", "density", "share of all tokens on which it is active", percent),
  numeric("mean_on_outlier", "on outliers", "mean activation per outlier token", (v) => decimal(v, 4)),
  numeric("mean_on_other", "on others", "mean activation per other token", (v) => decimal(v, 4)),
  numeric("max_activation", "max.", "largest activation", (v) => decimal(v, 2)),
  numeric("n_pairs", "pairs", "exemplar pairs that enter the score", whole),
  numeric("n_missed", "missed", "pairs active in exactly one of the two views", whole),
  numeric("moved", "moved", "part of the score from pairs that fire in both views", decimal),
  numeric("flicker", "flicker", "share of pairs missed though the feature is still near its threshold", percent),
  numeric("border", "border", "share of pairs missed as the content lies across the overlap's edge", percent),
  numeric("departure", "departure", "share of pairs missed as the feature has gone", percent),
  numeric("relative", "of null", "score without missed pairs over that of random placement: about 1 at random", (v) => decimal(v, 2), false),
].filter((column) => ["feature", "group"].includes(column.key) || column.key in columns)
  .filter((column) => column.key !== "label" || labels.length > 0);

function scoreOf(row) {
  const error = columns.cds_se[row];
  return element("span", {}, decimal(columns.cds[row]), element("span", { className: "muted error", textContent: Number.isFinite(error) ? ` ±${decimal(error)}` : "" }));
}

function labelOf(row) {
  if (columns.label[row] < 0) return "–";
  const share = element("span", { className: "muted", textContent: ` ${Math.round(100 * columns.label_share[row])} %` });
  const name = element("span", { className: "labelname", textContent: labels[columns.label[row]] });
  return element("span", {}, name, share);
}

const rows = new Rows(byId("features"), byId("scroller"), shown, openFeature, (sort) => remember("sort", sort.key === "feature" && !sort.down ? null : `${sort.down ? "-" : ""}${sort.key}`));

function openFeature(row) {
  keepOrder();
  location.href = featurePath(row);
}

// the order that a feature's page walks through
function keepOrder() {
  sessionStorage.setItem(`vitscope:order:${run}`, JSON.stringify(Array.from(rows.order)));
}

function remember(key, value) {
  const address = new URL(location.href);
  if (value === null || value === "") address.searchParams.delete(key); else address.searchParams.set(key, value);
  history.replaceState(null, "", address);
}

// -- filters

const ranges = {};
for (const input of document.querySelectorAll("input[data-column]")) {
  const { column, end } = input.dataset;
  (ranges[column] ??= [null, null])[Number(end)] = input;
  input.addEventListener("input", () => { if (column === "cds") showBrush(); filter(); });
}

function bounds(column) {
  const [low, high] = ranges[column].map((input) => input.value);
  return [low === "" ? -Infinity : Number(low), high === "" ? Infinity : Number(high)];
}

function filter() {
  const text = byId("search").value.trim().toLocaleLowerCase();
  const groups = new Set([...document.querySelectorAll('input[name="group"]:checked')].map((box) => box.value));
  const wanted = folded.map((label) => label.includes(text));
  // a limit is rounded as the column is, so that «from 0.01» keeps what is 0.01
  const rounded = (values, limit) => (values instanceof Float32Array ? Math.fround(limit) : limit);
  const limits = Object.keys(ranges).filter((key) => key in columns)
    .map((key) => [columns[key], ...bounds(key).map((limit) => rounded(columns[key], limit))])
    .filter(([, low, high]) => low !== -Infinity || high !== Infinity);
  const kept = everything.filter((row) => {
    if (text !== "" && !String(row).startsWith(text) && !(columns.label[row] >= 0 && wanted[columns.label[row]])) return false;
    if (groups.size < GROUPS.length && !groups.has(groupOf(columns.cds[row]))) return false;
    for (const [values, low, high] of limits) if (!(values[row] >= low && values[row] <= high)) return false;
    return true;
  });
  rows.show(kept);
  byId("n-shown").textContent = kept.length === n ? `${whole(n)} features` : `${whole(kept.length)} of ${whole(n)} features`;
  remember("find", text);
  remember("groups", groups.size < GROUPS.length ? [...groups].join(",") : null);
  for (const key of Object.keys(ranges)) {
    const given = ranges[key].map((input) => input.value);
    remember(key, given.some((value) => value !== "") ? given.join("..") : null);
  }
  keepOrder();
}

// -- histogram and γ

const histogram = new Histogram(byId("histogram"), columns.cds, (range) => {
  ranges.cds[0].value = range === null ? "" : range[0].toFixed(3);
  ranges.cds[1].value = range === null ? "" : range[1].toFixed(3);
  filter();
}, setGamma);

function showBrush() {
  const [low, high] = bounds("cds");
  histogram.setRange(low === -Infinity && high === Infinity ? null : [Math.max(0, low), Math.min(1, high)]);
}

function showGamma() {
  const gamma = currentGamma();
  byId("gamma").value = String(gamma);
  byId("gamma").setAttribute("aria-valuetext", decimal(gamma));
  if (document.activeElement !== byId("gamma-number")) byId("gamma-number").value = String(Number(gamma.toFixed(4)));
  const counts = { low: 0, high: 0, unscored: 0 };
  for (let row = 0; row < n; row += 1) counts[groupOf(columns.cds[row])] += 1;
  for (const group of GROUPS) byId(`n-${group}`).textContent = whole(counts[group]);
  const moved = gamma !== saved.gamma;
  byId("gamma-text").textContent = `${whole(counts.low)} low, ${whole(counts.high)} high, ${whole(counts.unscored)} unscored`
    + (moved ? ` · saved γ is ${decimal(saved.gamma)}` : " · as saved");
  byId("reset-gamma").disabled = !moved;
  if (byId("save-gamma")) byId("save-gamma").disabled = !moved;
  histogram.setGamma(gamma);
}

let waiting = false;
onGamma(() => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; showGamma(); filter(); });
});

const fits = (value) => Number.isFinite(value) && value >= 0 && value <= 1;
byId("gamma").addEventListener("input", (event) => setGamma(Number(event.target.value)));
byId("gamma-number").addEventListener("input", (event) => {
  const value = event.target.value === "" ? NaN : Number(event.target.value);
  event.target.setAttribute("aria-invalid", String(!fits(value)));
  if (fits(value)) setGamma(value);
});
byId("reset-gamma").addEventListener("click", () => setGamma(saved.gamma));
byId("save-gamma")?.addEventListener("click", () => save(currentGamma()));
byId("propose-gamma")?.addEventListener("click", () => save(null));

async function save(gamma) {
  byId("saved").textContent = "saving…";
  try {
    const done = await post(`/${run}/gamma`, { gamma });
    saved.gamma = done.gamma;
    byId("gamma-message").textContent = done.message;
    setGamma(done.gamma);
    const keep = element("code", { textContent: done.source === "given" ? `[scope] gamma = ${done.gamma}` : "[scope] without gamma" });
    byId("saved").replaceChildren(`Saved: ${whole(done.groups.low)} low, ${whole(done.groups.high)} high. For later commands, write in your study: `,
      keep, "; vitscope run then redoes what follows.");
  } catch (error) {
    byId("saved").textContent = `Not saved: ${error.message}`;
  }
}

// -- start

const sort = state.get("sort");
if (sort) rows.sortBy(sort.replace(/^-/, ""), sort.startsWith("-"));
byId("search").value = state.get("find") ?? "";
const groups = state.get("groups");
if (groups !== null) for (const box of document.querySelectorAll('input[name="group"]')) box.checked = groups.split(",").includes(box.value);
for (const key of Object.keys(ranges)) {
  (state.get(key) ?? "").split("..").slice(0, 2).forEach((value, end) => { ranges[key][end].value = value; });
}
showGamma();
showBrush();
filter();
byId("search").addEventListener("input", filter);
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("reset", () => setTimeout(() => { showBrush(); filter(); }));
for (const box of document.querySelectorAll('input[name="group"]')) box.addEventListener("change", filter);
byId("features").addEventListener("click", (event) => { if (event.target.tagName === "A") keepOrder(); });
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
});
document.body.dataset.ready = "yes";
