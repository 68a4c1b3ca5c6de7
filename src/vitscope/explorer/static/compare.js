// Two runs: histograms, awCDS, and the features that both have.

import { axis, drawChart, markedX } from "./chart.js";
import { colour, decimal, element, getJson, whole } from "./frame.js";

const byId = (id) => document.getElementById(id);
const KEYS = ["a", "b"];
const found = await getJson("/compare/data");
const letters = found.runs.map((_, i) => KEYS[i].toUpperCase());

const middles = found.edges.slice(0, -1).map((edge, i) => (edge + found.edges[i + 1]) / 2);
const stepped = uPlot.paths.stepped({ align: 0 });
drawChart(byId("cds"), 230, () => ({
  scales: { x: { time: false, range: [0, 1] } },
  axes: [axis("CDS"), { ...axis(""), size: 50, values: (_, ticks) => ticks.map((tick) => `${Number((100 * tick).toPrecision(3))} %`) }],
  series: [{}, ...KEYS.map((key) => ({ stroke: colour(`run-${key}`), fill: `${colour(`run-${key}`)}22`, width: 2, paths: stepped, points: { show: false } }))],
  hooks: { draw: found.runs.map((one, i) => markedX(one.gamma, `γ ${letters[i]}`, `run-${KEYS[i]}`, i)) },
}), [middles, ...found.runs.map((one) => one.share)]);

const spectra = found.runs.map((one) => one.spectrum);
const known = spectra.map((one, i) => [one, i]).filter(([one]) => one !== null);
if (known.length === 0) byId("awcds-text").textContent = "awCDS has been computed in neither run.";
else {
  // both runs may have other percentiles: each value at its own, undefined elsewhere
  const tables = known.map(([one]) => [one.percentile, one.awcds]);
  drawChart(byId("awcds"), 230, () => ({
    scales: { x: { time: false, range: [0, 100] } },
    axes: [axis("percentile of the token's norm"), { ...axis(""), size: 50 }],
    series: [{}, ...known.map(([, i]) => ({ stroke: colour(`run-${KEYS[i]}`), width: 2, spanGaps: true, points: { show: false } }))],
  }), tables.length > 1 ? uPlot.join(tables) : tables[0]);
}

const matched = found.matched;
if (matched.why_not) {
  byId("matched-text").textContent = `Not compared: ${matched.why_not}.`;
  byId("matched").hidden = true;
} else {
  byId("matched-text").textContent = `${whole(matched.n_matched)} features of A (${whole(matched.n_features[0])}) and B (${whole(matched.n_features[1])}) are each other's nearest decoder direction, with a cosine of ${matched.least} or more. `
    + `${whole(matched.n_scored)} of them have a CDS in both${matched.correlation === null ? "" : `; the scores correlate with r = ${decimal(matched.correlation, 2)}`}.`;
  drawMatched(matched.points);
  listMoved(matched.points);
}

function drawMatched(points) {
  const sorted = [...points].sort((a, b) => a[2] - b[2]);
  const dots = (chart) => {
    const context = chart.ctx;
    context.save();
    context.fillStyle = `${colour("ink")}66`;
    const size = 2 * devicePixelRatio;
    for (const point of sorted) {
      context.beginPath();
      context.arc(chart.valToPos(point[2], "x", true), chart.valToPos(point[3], "y", true), size, 0, 2 * Math.PI);
      context.fill();
    }
    context.restore();
  };
  drawChart(byId("matched"), 360, () => ({
    scales: { x: { time: false, range: [0, 1] }, y: { range: [0, 1] } },
    axes: [axis("CDS in A"), { ...axis("CDS in B"), size: 50 }],
    series: [{}, { width: 0, points: { show: false } }, { stroke: colour("muted"), width: 1, points: { show: false } }],
    hooks: { draw: [dots] },
  }), [[0, ...sorted.map((point) => point[2]), 1], [null, ...sorted.map((point) => point[3]), null], [0, ...sorted.map((point) => point[2]), 1]]);
}

function listMoved(points) {
  const far = [...points].sort((a, b) => Math.abs(b[3] - b[2]) - Math.abs(a[3] - a[2])).slice(0, 12);
  if (far.length === 0) return;
  const link = (key, feature) => element("a", { href: `/${key}/feature/${feature}`, textContent: String(feature) });
  const rows = far.map(([one, other, a, b]) => element("tr", {}, element("td", {}, link("a", one)), element("td", {}, link("b", other)), element("td", { textContent: decimal(a) }), element("td", { textContent: decimal(b) })));
  const head = element("tr", {}, ...["feature of A", "of B", "CDS in A", "in B"].map((text) => element("th", { scope: "col", textContent: text })));
  byId("moved").append(element("h3", { textContent: "Scored most differently" }), element("table", { className: "plain" }, element("thead", {}, head), element("tbody", {}, ...rows)));
}
document.body.dataset.ready = "yes";
