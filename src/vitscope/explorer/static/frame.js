// What every page shares: asking the server, γ, groups, the models' state.

const body = document.body;
export const run = body.dataset.run ?? null;
export const saved = { gamma: Number(body.dataset.gamma), unscored: body.dataset.unscored };

const token = document.querySelector('meta[name="vitscope-token"]').content;
const gammaKey = (key) => `vitscope:gamma:${key}`;

export function pageData() {
  return JSON.parse(document.getElementById("page").textContent);
}

async function checked(response) {
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try { message = JSON.parse(text).error ?? text; } catch { /* a plain refusal */ }
  throw new Error(message || `the explorer answered ${response.status}`);
}

export async function getJson(path) {
  return (await checked(await fetch(path))).json();
}

export async function getBytes(path) {
  return (await checked(await fetch(path))).arrayBuffer();
}

export async function post(path, content, headers = {}) {
  const raw = content instanceof Blob;
  const response = await fetch(path, {
    method: "POST",
    body: raw ? content : JSON.stringify(content),
    headers: { "x-vitscope-token": token, "content-type": raw ? "application/octet-stream" : "application/json", ...headers },
  });
  return (await checked(response)).json();
}

// -- γ: of the address, else of this browser tab, else as saved

let gamma = firstGamma();
const watchers = [];

function firstGamma() {
  const given = new URLSearchParams(location.search).get("gamma");
  if (given !== null && given !== "" && Number(given) >= 0 && Number(given) <= 1) return Number(given);
  const kept = run === null ? null : sessionStorage.getItem(gammaKey(run));
  return kept === null ? saved.gamma : Number(kept);
}

export function currentGamma() { return gamma; }

export function setGamma(value) {
  gamma = value;
  if (gamma === saved.gamma) sessionStorage.removeItem(gammaKey(run));
  else sessionStorage.setItem(gammaKey(run), String(gamma));
  const address = new URL(location.href);
  if (gamma === saved.gamma) address.searchParams.delete("gamma");
  else address.searchParams.set("gamma", String(gamma));
  history.replaceState(null, "", address);
  paintGroups();
  for (const watcher of watchers) watcher(gamma);
}

export function onGamma(watcher) { watchers.push(watcher); }

export function groupOf(cds) {
  if (!Number.isFinite(cds)) return saved.unscored === "low" ? "low" : "unscored";
  return cds <= gamma ? "low" : "high";
}

export function paintGroups(root = document) {
  for (const mark of root.querySelectorAll(".group[data-cds]")) {
    const cds = mark.dataset.cds === "" ? NaN : Number(mark.dataset.cds);
    const group = groupOf(cds);
    mark.className = `group chip ${group}`;
    mark.textContent = group === "unscored" ? group : `${group}-CDS`;
  }
}

export function groupChip(cds) {
  const chip = document.createElement("span");
  const group = groupOf(cds);
  chip.className = `chip ${group}`;
  chip.textContent = group;
  return chip;
}

export function featurePath(feature) { return `/${run}/feature/${feature}`; }

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// -- the table of features as columns

export function readColumns(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const types = { float32: Float32Array, float64: Float64Array, int32: Int32Array };
  const columns = {};
  for (const [name, place] of Object.entries(header.columns)) {
    columns[name] = new types[place.type](buffer, 4 + length + place.offset, place.length);
  }
  return { n: header.n, labels: header.labels, columns };
}

// -- numbers as the report writes them

export function decimal(value, digits = 3) {
  return Number.isFinite(value) ? value.toFixed(digits) : "–";
}

export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  if (share > 0 && share < 1e-5) return "< 0.001 %";
  return `${Number((100 * share).toPrecision(3))} %`;
}

export const whole = (value) => Number.isFinite(value) ? Math.round(value).toLocaleString("en") : "–";

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function typing(event) {
  return event.ctrlKey || event.metaKey || event.altKey
    || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)
    || event.target.getAttribute?.("role") === "application";
}

// -- the models load in the background: a page says how far they are

async function watchModels() {
  const status = document.getElementById("models");
  for (;;) {
    const { state, error } = await getJson(`/${run}/state`);
    status.className = state;
    if (state === "ready") { status.textContent = ""; return; }
    status.textContent = state === "loading" ? "loading backbone and SAE…" : `no models: ${error}`;
    if (state === "failed") return;
    await new Promise((done) => setTimeout(done, 1000));
  }
}

if (run !== null) {
  paintGroups();
  watchModels().catch(() => {});
}
