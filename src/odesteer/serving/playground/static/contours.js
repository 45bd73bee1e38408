// Marching squares: the closed outlines of the region where a function on a grid is large.

// For each way the corners of a cell can lie above (bit 0 upper left, then clockwise), the sides
// that outlines enter and leave by, the region on their left: 0 top, 1 right, 2 bottom, 3 left.
const SIDES = [
  [], [[0, 3]], [[1, 0]], [[1, 3]], [[2, 1]], [[0, 3], [2, 1]], [[2, 0]], [[2, 3]],
  [[3, 2]], [[0, 2]], [[1, 0], [3, 2]], [[1, 2]], [[3, 1]], [[0, 1]], [[3, 0]], [],
];

/**
 * Rings around {values ≥ level}, each a list of [column, row] in units of the grid. Beyond the
 * grid the function counts as small, so that rings close just outside of it.
 */
export function outlines(values, level) {
  const rows = values.length;
  const columns = values[0].length;
  const at = (row, column) => values[row]?.[column] ?? -Infinity;
  const next = new Map(); // from the side of a cell to the point on it and the following side
  for (let row = -1; row < rows; row += 1) {
    for (let column = -1; column < columns; column += 1) {
      const corners = [
        at(row, column),
        at(row, column + 1),
        at(row + 1, column + 1),
        at(row + 1, column),
      ];
      const kind = corners.reduce((bits, value, i) => bits | ((value >= level) << i), 0);
      for (const [from, to] of SIDES[kind]) {
        next.set(name(row, column, from), {
          point: crossing(row, column, from, corners, level),
          to: name(row, column, to),
        });
      }
    }
  }
  return rings(next);
}

/** Where the level crosses a side of the cell, by linear interpolation. */
function crossing(row, column, side, [a, b, c, d], level) {
  if (side === 0) return [column + share(a, b, level), row];
  if (side === 1) return [column + 1, row + share(b, c, level)];
  if (side === 2) return [column + share(d, c, level), row + 1];
  return [column, row + share(a, d, level)];
}

function share(from, to, level) {
  if (!Number.isFinite(from)) return 0.5;
  if (!Number.isFinite(to)) return 0.5;
  return (level - from) / (to - from);
}

/** A side by its first corner; two neighbouring cells give one name to the side between them. */
const name = (row, column, side) =>
  side % 2 ? `|${row},${column + (side === 1)}` : `-${row + (side === 2)},${column}`;

function rings(next) {
  const found = [];
  while (next.size) {
    const ring = [];
    let [at] = next.keys();
    while (next.has(at)) {
      const { point, to } = next.get(at);
      next.delete(at);
      ring.push(point);
      at = to;
    }
    found.push(ring);
  }
  return found;
}

/** Round steps through a range: multiples of 1, 2 or 5 times a power of ten, 0 left out. */
export function steps(low, high, about = 10) {
  const rough = Math.max((high - low) / about, 1e-9);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k += 1) if (k) found.push(k * step);
  return found;
}
