// Parts of a picture, resized to what a small network looks at; outside of the picture all is black.

import { resized } from "./slimface.js";

const f = Math.fround;

/** A picture of RGBA bytes from which windows are taken, as planes of 0..255. */
export class Windowed {
  /** @param resize `area`: the mean of all pixels that a square touches; or `linear`. */
  constructor(picture, resize) {
    this.picture = picture;
    this.sums = resize === "area" ? rectangleSums(picture) : null;
    this.level = null;
  }

  /** Rows `first` to `last` of the whole picture at another size: three planes after each other. */
  rows(height, width, first, last) {
    const { picture } = this;
    if (!this.sums) {
      if (this.level?.height !== height || this.level?.width !== width) {
        this.level = { height, width, data: resized(picture, height, width) };
      }
      const data = this.level.data.subarray(4 * first * width, 4 * last * width);
      return planes(data, (last - first) * width, new Float32Array(3 * (last - first) * width));
    }
    const [top, bottom] = edges(0, picture.height, height).map((edge) => edge.subarray(first, last));
    const [left, right] = edges(0, picture.width, width);
    return this.means(left, top, right, bottom, new Float32Array(3 * (last - first) * width));
  }

  /** Each window (left, top, right, bottom; the last two beyond it) at `side` by `side` pixels. */
  crops(windows, side) {
    const size = 3 * side * side;
    const all = new Float32Array(windows.length * size);
    windows.forEach(([left, top, right, bottom], i) => {
      const target = all.subarray(i * size, (i + 1) * size);
      if (this.sums) {
        const [x1, x2] = edges(left, right, side);
        const [y1, y2] = edges(top, bottom, side);
        this.means(x1, y1, x2, y2, target);
      } else {
        planes(resized(this.cut(left, top, right, bottom), side, side), side * side, target);
      }
    });
    return all;
  }

  means(left, top, right, bottom, target) {
    const { sums, picture: { width, height } } = this;
    const columns = left.length, rows = top.length, step = 3 * (width + 1);
    // Beyond the border the sums stay what they are at it: black adds nothing.
    const inside = (edge, most) => Math.min(Math.max(edge, 0), most);
    const from = left.map((edge) => 3 * inside(edge, width));
    const to = right.map((edge) => 3 * inside(edge, width));
    for (let y = 0; y < rows; y++) {
      const above = step * inside(top[y], height), below = step * inside(bottom[y], height);
      const high = bottom[y] - top[y];
      for (let x = 0; x < columns; x++) {
        const area = high * (right[x] - left[x]);
        for (let c = 0; c < 3; c++) {
          const a = from[x] + c, b = to[x] + c;
          // Sums wrap around in 32 bits; their differences are right all the same.
          const sum = (sums[below + b] - sums[above + b] - sums[below + a] + sums[above + a]) | 0;
          target[(c * rows + y) * columns + x] = f(sum) / area;
        }
      }
    }
    return target;
  }

  cut(left, top, right, bottom) {
    const { data, width, height } = this.picture;
    const wide = right - left;
    const part = new Uint8ClampedArray(4 * wide * (bottom - top));
    const first = Math.max(left, 0), last = Math.min(right, width);
    for (let y = Math.max(top, 0); y < Math.min(bottom, height) && first < last; y++) {
      const row = data.subarray(4 * (y * width + first), 4 * (y * width + last));
      part.set(row, 4 * ((y - top) * wide + first - left));
    }
    return { data: part, width: wide, height: bottom - top };
  }
}

function planes(data, count, target) {
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) target[c * count + i] = data[4 * i + c];
  }
  return target;
}

// Where each of `count` pixels begins and ends: whole pixels of the source, overlapping.
function edges(start, stop, count) {
  const from = new Int32Array(count), to = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    from[i] = start + Math.floor((i * (stop - start)) / count);
    to[i] = start + Math.ceil(((i + 1) * (stop - start)) / count);
  }
  return [from, to];
}

// Sums of all pixels above and left of each corner, three colours side by side.
function rectangleSums({ data, width, height }) {
  const step = 3 * (width + 1);
  const sums = new Int32Array((height + 1) * step);
  for (let y = 0; y < height; y++) {
    for (let c = 0; c < 3; c++) {
      let row = 0;
      let from = 4 * y * width + c, to = (y + 1) * step + 3 + c;
      for (let x = 0; x < width; x++, from += 4, to += 3) {
        row += data[from];
        sums[to] = sums[to - step] + row;
      }
    }
  }
  return sums;
}
