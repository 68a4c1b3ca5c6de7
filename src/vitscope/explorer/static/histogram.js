// The CDS histogram: bars coloured by γ, a brush for a range of CDS, a line that moves γ.

import { colour, decimal } from "./frame.js";

const BINS = 80;
const HEIGHT = 170;

export class Histogram {
  // `onRange` gets [low, high] or null; `onGamma` gets the value under the dragged line.
  constructor(place, cds, onRange, onGamma) {
    this.place = place;
    this.cds = cds.filter((value) => Number.isFinite(value)).sort();
    this.onRange = onRange;
    this.onGamma = onGamma;
    this.gamma = 0;
    this.edges = Array.from({ length: BINS + 1 }, (_, i) => i / BINS);
    this.middles = this.edges.slice(0, -1).map((edge) => edge + 0.5 / BINS);
    this.draw();
    new ResizeObserver(() => this.resize()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // how many scores are at most `value`
  upTo(value) {
    let low = 0, high = this.cds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.cds[middle] <= value) low = middle + 1; else high = middle;
    }
    return low;
  }

  counts() {
    const all = [], below = [];
    for (let bin = 0; bin < BINS; bin += 1) {
      const start = bin === 0 ? 0 : this.upTo(this.edges[bin]);
      const end = this.upTo(bin === BINS - 1 ? Infinity : this.edges[bin + 1]);
      all.push(end - start);
      below.push(Math.max(0, Math.min(end, this.upTo(this.gamma)) - start));
    }
    return [this.middles, all, below];
  }

  draw() {
    this.chart?.destroy();
    const bars = uPlot.paths.bars({ size: [0.9, 100] });
    const axis = { stroke: colour("muted"), grid: { show: false }, ticks: { stroke: colour("line"), size: 4 }, font: "12px system-ui" };
    this.chart = new uPlot({
      width: this.place.clientWidth, height: HEIGHT,
      padding: [8, 6, 0, 0],
      legend: { show: false },
      scales: { x: { time: false, range: [0, 1] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.05)] } },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      axes: [
        { ...axis, size: 26, splits: [0, 0.2, 0.4, 0.6, 0.8, 1] },
        { ...axis, size: 44, space: 34, grid: { stroke: colour("line"), width: 1 } },
      ],
      series: [
        {},
        { fill: colour("high-bar"), stroke: colour("high-bar"), width: 0, paths: bars, points: { show: false } },
        { fill: colour("low-bar"), stroke: colour("low-bar"), width: 0, paths: bars, points: { show: false } },
      ],
      // what lies over the bars is placed once the chart knows where they are
      hooks: { setSelect: [(chart) => this.brushed(chart)], draw: [() => this.move()] },
    }, this.counts(), this.place);
    this.line = document.createElement("div");
    this.line.className = "gammaline";
    this.line.title = "drag to move γ";
    this.chart.over.append(this.line);
    this.line.addEventListener("pointerdown", (event) => this.dragLine(event));
    this.line.addEventListener("mousedown", (event) => event.stopPropagation());
  }

  resize() {
    const width = this.place.clientWidth;
    if (width > 0 && width !== this.chart.width) {
      this.chart.setSize({ width, height: HEIGHT });
    }
  }

  brushed(chart) {
    const { left, width } = chart.select;
    if (width < 3) { this.onRange(null); return; }
    this.onRange([left, left + width].map((x) => Math.min(1, Math.max(0, chart.posToVal(x, "x")))));
  }

  dragLine(event) {
    event.preventDefault();
    event.stopPropagation();
    this.line.setPointerCapture(event.pointerId);
    const box = this.chart.over.getBoundingClientRect();
    const move = (moved) => {
      const share = Math.min(1, Math.max(0, (moved.clientX - box.left) / box.width));
      this.onGamma(Math.round(share * 1000) / 1000);
    };
    const end = () => {
      this.line.removeEventListener("pointermove", move);
      this.line.removeEventListener("pointerup", end);
    };
    this.line.addEventListener("pointermove", move);
    this.line.addEventListener("pointerup", end);
  }

  setGamma(value) {
    this.gamma = value;
    this.chart.setData(this.counts(), false);
    this.chart.redraw(false);
  }

  setRange(range) {
    this.range = range;
    const [left, right] = range === null ? [0, 0] : range.map((value) => this.chart.valToPos(value, "x"));
    this.chart.setSelect({ left, width: right - left, top: 0, height: this.chart.over.clientHeight }, false);
  }

  move() {
    if (!this.line) return;
    this.line.style.left = `${this.chart.valToPos(this.gamma, "x")}px`;
    this.line.dataset.text = `γ ${decimal(this.gamma)}`;
  }
}
