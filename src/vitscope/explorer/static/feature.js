// A feature's page: what the models must compute is added to what the tables have said.

import { axis, drawChart, markedX } from "./chart.js";
import {
  colour, decimal, element, featurePath, getBytes, getJson, groupChip, groupOf, onGamma, pageData, percent, readColumns, run, typing, whole,
} from "./frame.js";

const byId = (id) => document.getElementById(id);
const { feature, n, edges, all, tau } = pageData();
const base = `/${run}/feature/${feature}`;
const SVG = "http://www.w3.org/2000/svg";

// -- previous and next, in the order that the table had

const kept = sessionStorage.getItem(`vitscope:order:${run}`);
const order = kept === null ? null : JSON.parse(kept);
const place = order?.indexOf(feature) ?? -1;
if (place >= 0) {
  byId("previous").href = featurePath(order[Math.max(0, place - 1)]);
  byId("next").href = featurePath(order[Math.min(order.length - 1, place + 1)]);
  byId("place").textContent = `${whole(place + 1)} of ${whole(order.length)} in the table`;
} else {
  byId("place").textContent = `of ${whole(n)}, by number`;
}

document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  const go = { ArrowLeft: byId("previous").href, ArrowRight: byId("next").href, t: `/${run}/` }[event.key];
  if (go) { event.preventDefault(); location.href = go; }
  if (event.key === "h") byId("heatmaps")?.click();
});

byId("heatmaps")?.addEventListener("change", (event) => document.body.classList.toggle("noheat", !event.target.checked));

// -- pairs

function framed(figure, offset, side) {
  const frame = element("div", { className: "overlap" });
  frame.style.left = frame.style.top = `${100 * offset}%`;
  frame.style.width = frame.style.height = `${100 * side}%`;
  figure.querySelector(".frame").append(frame);
}

function mark(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// cells are a unit wide; a dot's area and an arrow's width are shares of the whole mass
function drawFlow(figure, pair) {
  const { side, shift, grid } = pair.overlap;
  const picture = figure.querySelector("img");
  picture.style.width = picture.style.height = `${100 * grid / side}%`;
  picture.style.left = picture.style.top = `${-100 * shift / side}%`;
  const svg = mark("svg", { viewBox: `0 0 ${side} ${side}`, class: "arrows", "aria-hidden": "true" });
  const unit = side / 12;
  const size = (share) => unit * Math.min(0.75, Math.max(0.14, 0.9 * Math.sqrt(share)));
  for (const [row, column, share] of pair.mass[1]) svg.append(mark("circle", { cx: column + 0.5, cy: row + 0.5, r: size(share), class: "second", "stroke-width": 0.12 * unit }));
  for (const [row, column, share] of pair.mass[0]) svg.append(mark("circle", { cx: column + 0.5, cy: row + 0.5, r: 0.7 * size(share), class: "first" }));
  for (const [row, column, toRow, toColumn, mass] of pair.arrows) {
    const x1 = column + 0.5, y1 = row + 0.5, x2 = toColumn + 0.5, y2 = toRow + 0.5;
    const length = Math.hypot(x2 - x1, y2 - y1), width = unit * Math.max(0.07, 0.5 * Math.sqrt(mass) * 0.7);
    const head = Math.min(0.45 * length, unit * 0.3 + 1.6 * width), ux = (x2 - x1) / length, uy = (y2 - y1) / length;
    const bx = x2 - head * ux, by = y2 - head * uy, wing = 0.35 * head + 0.6 * width;
    svg.append(mark("line", { x1, y1, x2: bx, y2: by, class: "halo", "stroke-width": width + 0.1 * unit }));
    svg.append(mark("line", { x1, y1, x2: bx, y2: by, class: "stream", "stroke-width": width }));
    svg.append(mark("polygon", { class: "head", points: `${x2},${y2} ${bx - wing * uy},${by + wing * ux} ${bx + wing * uy},${by - wing * ux}` }));
  }
  figure.querySelector(".frame").append(svg);
}

async function showPair(article) {
  const pair = await getJson(`${base}/pair/${article.dataset.rank}`);
  const { side, shift, grid } = pair.overlap;
  const figure = (view) => article.querySelector(`[data-view="${view}"]`);
  framed(figure("first"), shift / grid, side / grid);
  framed(figure("second"), 0, side / grid);
  drawFlow(figure("flow"), pair);
  const words = [`${whole(pair.cells[0])} and ${whole(pair.cells[1])} patches of the shared part`];
  if (pair.stays !== null) words.push(`${percent(pair.stays)} of the mass stays`);
  if (pair.arrows.length > 0) {
    const [row, column, toRow, toColumn, mass] = pair.arrows[0];
    words.push(`heaviest stream ${percent(mass)}, ${decimal(Math.hypot(toRow - row, toColumn - column), 1)} patches`);
  }
  if (pair.n_arrows > pair.arrows.length) words.push(`${pair.arrows.length} of ${pair.n_arrows} streams drawn`);
  if (pair.differs) words.push(`computed here: ${pair.emd === null ? "no distance" : decimal(pair.emd, 2)}, which is not what the run stored`);
  article.querySelector(".more").textContent = `· ${words.join(" · ")}`;
  article.dataset.shown = "yes";
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    showPair(entry.target).catch((error) => {
      entry.target.querySelector(".more").textContent = `· ${error.message}`;
      entry.target.dataset.shown = "failed";
    });
  }
}, { rootMargin: "400px" });
for (const article of document.querySelectorAll(".pair")) watcher.observe(article);

// -- what it is found with

const columns = getBytes(`/${run}/columns`).then(readColumns);

async function listFeatures(list, found, note) {
  const { cds } = (await columns).columns;
  const fill = () => list.replaceChildren(...found.map((one) => element("li", {},
    element("a", { href: featurePath(one.feature), textContent: String(one.feature) }), " ",
    groupChip(cds[one.feature]), ` CDS ${decimal(cds[one.feature])} `,
    element("span", { className: "muted", textContent: note(one) }))));
  fill();
  onGamma(fill);
}

async function showCooccurrence() {
  const found = await getJson(`${base}/cooccurrence`);
  const images = found.n_unreadable > 0 ? `${found.n_images} top images (${found.n_unreadable} cannot be read)` : `${found.n_images} top images`;
  byId("norms-text").textContent = found.n_fired > 0
    ? `Grey: all patch tokens of the run's sample. Colour: the ${whole(found.n_fired)} of ${whole(found.n_tokens)} tokens of its ${images} on which it fires; `
      + `${percent(found.n_above_tau / found.n_fired)} of them are outliers (norm above τ = ${Number(tau.toPrecision(4))}).`
    : `It fires on no token of the plain view of its ${images}.`;
  drawNorms(found.norms);
  byId("together-text").textContent = found.n_fired > 0
    ? `Share of those ${whole(found.n_fired)} tokens on which the other fires too, beside its share of all tokens of its ${images}.` : "Nothing to say.";
  listFeatures(byId("together"), found.together, (one) => `${percent(one.share)}, anyway ${percent(one.anyway)}`);
  listFeatures(byId("nearest"), found.nearest, (one) => `cosine ${decimal(one.cosine, 2)}`);
  const words = found.words;
  byId("words-text").textContent = words.why_not ? `None: ${words.why_not}.`
    : words.listed.length === 0 ? `Removing it takes nothing from any of ${words.n_phrases} phrases.`
    : `Of ${words.n_phrases} phrases, those whose cosine with its ${words.n_images} top images falls most when it alone is removed: what it adds, not what it is.`;
  byId("words").replaceChildren(...(words.listed ?? []).map((one) => element("li", {}, one.phrase, " ", element("span", { className: "muted", textContent: `−${one.fall.toFixed(4)}` }))));
  byId("cooccurrence").setAttribute("aria-busy", "false");
}

function drawNorms(norms) {
  const group = { low: "low", high: "high", unscored: "muted" }[groupOf(Number(document.querySelector("h1 .group").dataset.cds))];
  const middles = norms.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const bars = uPlot.paths.bars({ size: [1, 100] });
  drawChart(byId("norms"), 150, () => ({
    scales: { x: { time: false, range: [edges[0], edges[edges.length - 1]] } },
    axes: [{ ...axis("L2 norm of the token"), values: (_, ticks) => ticks.map((tick) => Number((10 ** tick).toPrecision(3)).toString()), size: 26 }, { ...axis(""), size: 44, values: (_, ticks) => ticks.map((tick) => `${Number((100 * tick).toPrecision(3))} %`) }],
    series: [{}, { fill: colour("bulk"), width: 0, paths: bars, points: { show: false } }, { stroke: colour(group), fill: `${colour(group)}55`, width: 1, paths: bars, points: { show: false } }],
    hooks: { draw: [markedX(Math.log10(tau), "τ")] },
  }), [middles, all, norms]);
}

showCooccurrence().catch((error) => {
  byId("norms-text").textContent = error.message;
  byId("cooccurrence").setAttribute("aria-busy", "false");
});
