// Line charts in the page's own colours, drawn again when the width or the scheme changes.

import { colour } from "./frame.js";

export function axis(text) {
  return {
    label: text, labelSize: text ? 18 : 0, labelGap: 0, size: 30, labelFont: "12px system-ui", font: "12px system-ui",
    stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), size: 4 },
  };
}

// `options()` is asked anew for every drawing, since colours change with the scheme
export function drawChart(place, height, options, data) {
  let chart = null;
  const draw = () => {
    chart?.destroy();
    chart = new uPlot({ width: place.clientWidth, height, legend: { show: false }, cursor: { drag: { x: false, y: false } }, ...options() }, data, place);
  };
  draw();
  new ResizeObserver(() => {
    if (place.clientWidth > 0 && place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height });
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return chart;
}

// a vertical line with a word, as a hook of uPlot
export function markedX(value, text, name = "ink", line = 0) {
  return (chart) => {
    const context = chart.ctx, x = Math.round(chart.valToPos(value, "x", true));
    const { top, height, left, width } = chart.bbox;
    if (!(x >= left && x <= left + width)) return;
    context.save();
    context.strokeStyle = context.fillStyle = colour(name);
    context.lineWidth = devicePixelRatio;
    context.setLineDash([5 * devicePixelRatio, 3 * devicePixelRatio]);
    context.beginPath();
    context.moveTo(x, top);
    context.lineTo(x, top + height);
    context.stroke();
    context.font = `${12 * devicePixelRatio}px system-ui`;
    const nearRight = x > left + 0.85 * width;
    context.textAlign = nearRight ? "right" : "left";
    context.fillText(text, x + (nearRight ? -4 : 4) * devicePixelRatio, top + (12 + 15 * line) * devicePixelRatio);
    context.restore();
  };
}
