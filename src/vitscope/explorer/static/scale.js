// Colours of a map: stops between which colours are mixed.

// cividis, which colour-blind eyes see as others do
const AMOUNT = [[0, 32, 76], [62, 74, 107], [124, 123, 120], [188, 175, 111], [255, 233, 69]];
const SCOPE = [[0, 114, 178], [120, 165, 190], [235, 235, 225], [233, 160, 100], [213, 94, 0]];

function mixed(stops, share) {
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at));
  return stops[i].map((value, channel) => Math.round(value + (at - i) * (stops[i + 1][channel] - value)));
}

const OPACITY = 165;

// from the least to the largest value
function spread(values, stops) {
  const known = values.filter((value) => value !== null);
  const low = Math.min(...known), high = Math.max(...known);
  return { low, high, stops, colour: (value) => mixed(stops, high > low ? (value - low) / (high - low) : 0) };
}

export const amounts = (values) => spread(values, AMOUNT);
export const scopes = (values) => spread(values, SCOPE);

export function paint(canvas, grid, values, scale) {
  canvas.width = canvas.height = grid;
  const picture = new ImageData(grid, grid);
  values.forEach((value, i) => {
    if (value === null) return;
    picture.data.set([...scale.colour(value), OPACITY], 4 * i);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

export function paintLegend(canvas, scale) {
  canvas.width = 128;
  canvas.height = 1;
  const picture = new ImageData(128, 1);
  for (let i = 0; i < 128; i += 1) picture.data.set([...mixed(scale.stops, i / 127), 255], 4 * i);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
