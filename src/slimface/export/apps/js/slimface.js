// Faces in pictures, from the spec of a slimface model alone. For browsers and Node; the runtime
// (onnxruntime-web or onnxruntime-node) is handed in, nothing is imported here.
//
//   const detector = await Detector.open(ort, bytes, description);
//   const { faces } = await detector.detect({ data, width, height });   // RGBA, 8 bits
//
// `description` is { spec, ...files[0] } of the spec.json beside the model: what to find, and how the
// file is fed and read. Cascades of three networks: cascade.js.

export const SPEC_VERSION = 1;

/** What is wrong with a model, a spec or a picture, and what to do now. */
export class SlimfaceError extends Error {}

export class Detector {
  /** Open the bytes of an ONNX file. Options go to the session: `{ executionProviders: ["wasm"] }`. */
  static async open(ort, bytes, description, options = {}) {
    checkDescription(description, "detection");
    const session = await openSession(ort, bytes, options);
    return new Detector(ort, session, description);
  }

  constructor(ort, session, { spec, outputs = "raw", canvas = null }) {
    Object.assign(this, { ort, session, spec, outputs, canvas });
  }

  /**
   * Find the faces of a picture `{ data, width, height }` (RGBA bytes, as canvases give).
   *
   * @param settings `score`, `overlap`, `cap`, `longest` (pixels of the longer side for the
   *   network); what is left out stands in the spec.
   * @returns `{ faces: [{ box: [x1, y1, x2, y2], score, landmarks? }], ms }`, best first, in pixels
   *   of the picture. `ms` has `prepare`, `network` and `decode`.
   */
  async detect(picture, settings = {}) {
    checkPicture(picture);
    const start = performance.now();
    const input = prepare(this.spec, picture, settings.longest, this.canvas);
    const tensor = new this.ort.Tensor("float32", input.images, [1, 3, input.height, input.width]);
    const prepared = performance.now();
    const given = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const ran = performance.now();
    const raw = this.outputs === "decoded"
      ? { scores: given.scores?.data, boxes: given.boxes?.data, landmarks: given.landmarks?.data }
      : { logits: given.logits?.data, offsets: given.offsets?.data, landmarks: given.landmarks?.data };
    const faces = read(this.spec, raw, input, settings);
    const done = performance.now();
    return {
      faces,
      ms: { prepare: prepared - start, network: ran - prepared, decode: done - ran },
    };
  }
}

/** From RGBA bytes to the network's input: resized, normalised, padded below and on the right. */
export function prepare(spec, picture, longest = null, canvas = null) {
  const { mean = [0, 0, 0], scale = 1, colour = "rgb", multiple_of: multiple = 1 } = spec.preprocess;
  const [rows, columns] = sized(picture, longest, canvas);
  const [height, width] = canvas ?? [rows, columns].map((n) => Math.ceil(n / multiple) * multiple);
  const pixels = resized(picture, rows, columns);
  const images = new Float32Array(3 * height * width);
  const order = colour === "rgb" ? [0, 1, 2] : [2, 1, 0];
  order.forEach((channel, plane) => {
    const shift = Math.fround(mean[channel]);
    for (let y = 0; y < rows; y++) {
      let from = 4 * y * columns + channel;
      let to = (plane * height + y) * width;
      for (let x = 0; x < columns; x++, from += 4) images[to++] = (pixels[from] - shift) * scale;
    }
  });
  return {
    images, height, width,
    ratio: [columns / picture.width, rows / picture.height],
  };
}

export function sized({ width, height }, longest, canvas) {
  const scale = longest ? longest / Math.max(height, width) : 1;
  const [rows, columns] = [height, width].map((side) => Math.max(1, roundHalfEven(side * scale)));
  if (!canvas) return [rows, columns];
  const fit = Math.min(canvas[0] / rows, canvas[1] / columns, 1);
  return [rows, columns].map((side) => Math.max(1, roundHalfEven(side * fit)));
}

export function roundHalfEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/** Bilinear, to the bits of OpenCV's INTER_LINEAR on bytes: no antialiasing, weights in 2048ths. */
export function resized({ data, width, height }, rows, columns) {
  if (rows === height && columns === width) return data;
  const out = new Uint8ClampedArray(4 * rows * columns).fill(255);
  // OpenCV takes means where both sides are halved, and rounds their halves up.
  const isHalf = height === 2 * rows && width === 2 * columns;
  const [x0, x1, w0, w1] = taps(width, columns, true);
  const [y0, y1, v0, v1] = taps(height, rows, false);
  for (let y = 0; y < rows; y++) {
    const above = 4 * y0[y] * width, below = 4 * y1[y] * width, v = v0[y], u = v1[y];
    for (let x = 0; x < columns; x++) {
      const left = 4 * x0[x], right = 4 * x1[x], a = w0[x], b = w1[x];
      const to = 4 * (y * columns + x);
      for (let c = 0; c < 3; c++) {
        const nw = data[above + left + c], ne = data[above + right + c];
        const sw = data[below + left + c], se = data[below + right + c];
        const top = (nw * a + ne * b) >> 4, bottom = (sw * a + se * b) >> 4;
        out[to + c] = isHalf
          ? (nw + ne + sw + se + 2) >> 2
          : (((top * v) >> 16) + ((bottom * u) >> 16) + 2) >> 2;
      }
    }
  }
  return out;
}

// The two pixels that each new one is mixed from, and their weights. Beyond the border both are the
// pixel at it; columns are then taken whole, rows keep their weights, each rounded.
function taps(from, to, isColumns) {
  const low = new Int32Array(to), high = new Int32Array(to);
  const near = new Int32Array(to), far = new Int32Array(to);
  for (let i = 0; i < to; i++) {
    const place = Math.fround((i + 0.5) * (from / to) - 0.5);
    const first = Math.floor(place), part = Math.fround(place - first);
    low[i] = Math.min(Math.max(first, 0), from - 1);
    high[i] = Math.min(Math.max(first + 1, 0), from - 1);
    const isWhole = isColumns && (first < 0 || first + 1 >= from);
    near[i] = isWhole ? 2048 : roundHalfEven(Math.fround(1 - part) * 2048);
    far[i] = isWhole ? 0 : roundHalfEven(part * 2048);
  }
  return [low, high, near, far];
}

/** Turn the network's answers into faces in pixels of the picture, best first. */
export function read(spec, raw, input, settings = {}) {
  const plan = spec.postprocess;
  const floor = settings.score ?? plan.score_floor;
  const isDecoded = raw.scores !== undefined;
  const values = isDecoded ? raw.scores : raw.logits;
  const anchors = anchorsOf(spec.anchors, input.height, input.width);
  const count = anchors.length / 4;
  if (values?.length !== count) {
    throw new SlimfaceError(
      `The network answers for ${values?.length ?? 0} anchors, its spec has ${count}. ` +
        "Export the model again.",
    );
  }
  const limit = isDecoded ? floor : Math.log(floor / (1 - floor));
  let order = [];
  for (let i = 0; i < count; i++) {
    if (Number.isNaN(values[i])) {
      throw new SlimfaceError("The network gives values that are no numbers. Export it again.");
    }
    if (values[i] >= limit) order.push(i);
  }
  order.sort((a, b) => values[b] - values[a] || a - b);
  order = order.slice(0, plan.pre_nms);
  const boxes = order.map((i) =>
    isDecoded ? raw.boxes.subarray(4 * i, 4 * i + 4) : decodeBox(spec.codec, raw.offsets, anchors, i),
  );
  const kept = suppress(boxes, settings.overlap ?? plan.nms_overlap, settings.cap ?? plan.cap);
  const [sx, sy] = input.ratio;
  return kept.map((k) => {
    const i = order[k];
    const [x1, y1, x2, y2] = boxes[k];
    const face = {
      box: [x1 / sx, y1 / sy, x2 / sx, y2 / sy],
      score: isDecoded ? values[i] : 1 / (1 + Math.exp(-values[i])),
    };
    if (raw.landmarks) {
      const points = isDecoded
        ? pointsOf(raw.landmarks, i, spec.landmarks)
        : decodePoints(spec.codec, raw.landmarks, anchors, i, spec.landmarks);
      face.landmarks = points.map(([x, y]) => [x / sx, y / sy]);
    }
    return face;
  });
}

const known = new Map();

/** Centre x, centre y, width, height of every anchor: by level, row, column, size. */
export function anchorsOf(grid, height, width) {
  const key = `${JSON.stringify(grid)} ${height} ${width}`;
  if (known.has(key)) return known.get(key);
  const { centre = 0.5, height_per_width: tall = 1, clip = false } = grid;
  const maps = grid.levels.map((level) => ({
    ...level,
    step: level.step ?? level.stride,
    rows: Math.ceil(height / level.stride),
    columns: Math.ceil(width / level.stride),
  }));
  const count = maps.reduce((sum, { rows, columns, sizes }) => sum + rows * columns * sizes.length, 0);
  const anchors = new Float32Array(4 * count);
  let i = 0;
  for (const { rows, columns, step, sizes } of maps) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        for (const size of sizes) {
          anchors[i++] = (x + centre) * step;
          anchors[i++] = (y + centre) * step;
          anchors[i++] = size;
          anchors[i++] = size * tall;
        }
      }
    }
  }
  if (clip) {
    for (i = 0; i < anchors.length; i++) {
      anchors[i] = Math.min(Math.max(anchors[i], 0), i % 2 ? height : width);
    }
  }
  if (known.size > 8) known.clear();
  known.set(key, anchors);
  return anchors;
}

// Liu et al., "SSD", arXiv:1512.02325, equation 2.
function decodeBox({ centre_variance: cv = 0.1, size_variance: sv = 0.2 }, offsets, anchors, i) {
  const at = 4 * i;
  const [ax, ay, aw, ah] = anchors.subarray(at, at + 4);
  const x = ax + offsets[at] * cv * aw, y = ay + offsets[at + 1] * cv * ah;
  const w = (aw * Math.exp(offsets[at + 2] * sv)) / 2, h = (ah * Math.exp(offsets[at + 3] * sv)) / 2;
  return [x - w, y - h, x + w, y + h].map(Math.fround);
}

function decodePoints({ centre_variance: cv = 0.1 }, offsets, anchors, i, count) {
  const [ax, ay, aw, ah] = anchors.subarray(4 * i, 4 * i + 4);
  return pointsOf(offsets, i, count).map(([x, y]) => [ax + x * cv * aw, ay + y * cv * ah]);
}

function pointsOf(values, i, count) {
  return Array.from({ length: count }, (_, k) => {
    const at = 2 * (i * count + k);
    return [values[at], values[at + 1]];
  });
}

/**
 * Greedy suppression of boxes sorted best first; returns the places of those that stay.
 *
 * @param pixel 1 where the second corner of a box is its last pixel.
 */
export function suppress(boxes, overlap, cap = boxes.length, pixel = 0) {
  // In 32 bits, as published systems decide it: with doubles other boxes of a tie would stay.
  const f = Math.fround;
  const area = ([x1, y1, x2, y2]) =>
    f(Math.max(f(f(x2 - x1) + pixel), 0) * Math.max(f(f(y2 - y1) + pixel), 0));
  const areas = boxes.map(area);
  const limit = notAbove(overlap);
  const kept = [];
  for (let i = 0; i < boxes.length && kept.length < cap; i++) {
    const [ax1, ay1, ax2, ay2] = boxes[i];
    const isHit = kept.some((k) => {
      const [bx1, by1, bx2, by2] = boxes[k];
      const wide = f(f(Math.min(ax2, bx2) - Math.max(ax1, bx1)) + pixel);
      const high = f(f(Math.min(ay2, by2) - Math.max(ay1, by1)) + pixel);
      if (wide <= 0 || high <= 0) return false;
      const shared = f(wide * high);
      return f(shared / f(f(areas[i] + areas[k]) - shared)) > limit;
    });
    if (!isHit) kept.push(i);
  }
  return kept;
}

// The largest number of 32 bits that is not above a positive one.
function notAbove(value) {
  const number = new Float32Array([value]);
  if (number[0] > value) new Int32Array(number.buffer)[0] -= 1;
  return number[0];
}

/** Refuse a description of a newer version, or of another task. */
export function checkDescription(description, task) {
  const spec = description?.spec;
  if (spec?.version > SPEC_VERSION || spec?.version === undefined) {
    throw new SlimfaceError(
      `The spec has version ${spec?.version}; this file reads up to ${SPEC_VERSION}. ` +
        "Take slimface.js from the bundle that the model came with.",
    );
  }
  if (spec.task !== task) {
    throw new SlimfaceError(`The model is for ${spec.task}; here is what runs ${task}. Use another.`);
  }
}

/** Open the bytes of an ONNX file. */
export async function openSession(ort, bytes, options) {
  try {
    return await ort.InferenceSession.create(bytes, options);
  } catch (error) {
    throw new SlimfaceError(
      `The model cannot be opened: ${error.message}. Copy or export it again.`,
    );
  }
}

/** Refuse what is no picture `{ data, width, height }` of RGBA bytes. */
export function checkPicture({ data, width, height } = {}) {
  if (!(width > 0 && height > 0) || data?.length !== 4 * width * height) {
    throw new SlimfaceError(
      `A picture has width x height x 4 bytes (RGBA); this one has ${data?.length} for ` +
        `${width} x ${height}. Read it from a canvas with getImageData.`,
    );
  }
}
