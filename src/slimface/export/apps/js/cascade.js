// Faces by three small networks in a row, each looking at what the one before has left (MTCNN), from
// the spec of a slimface cascade alone.
//
//   const cascade = await Cascade.open(ort, [pnet, rnet, onet], description);   // bytes of ONNX files
//   const { faces } = await cascade.detect({ data, width, height });            // RGBA, 8 bits
//
// Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
// 2016, arXiv:1604.02878. The rules in which published systems differ are in the spec. Boxes are
// computed in 32 bits throughout, since they are rounded to pixels on the way.

import {
  checkDescription, checkPicture, Detector, openSession, resized, roundHalfEven, sized, SlimfaceError,
  suppress,
} from "./slimface.js";
import { Windowed } from "./windows.js";

const NETS = ["pnet", "rnet", "onet"];
const CELL_PX = 12, CELL_STRIDE = 2, REFINE_PX = 24, OUTPUT_PX = 48;

const f = Math.fround;

/**
 * Open what a spec.json describes, one network or a cascade.
 *
 * @param read From the path of a file beside spec.json to its bytes.
 * @param description `{ spec, ...files[0] }`.
 */
export async function open(ort, read, description, options = {}) {
  const { spec, path } = description;
  const task = spec?.task === "cascade" ? "cascade" : "detection";
  checkDescription(description, task);
  if (task === "detection") return Detector.open(ort, await read(path), description, options);
  const bytes = await Promise.all(NETS.map((net) => read(`${path}/${net}.onnx`)));
  return Cascade.open(ort, bytes, description, options);
}

export class Cascade {
  /** Open the bytes of three ONNX files. Options go to their sessions. */
  static async open(ort, bytes, description, options = {}) {
    checkDescription(description, "cascade");
    const sessions = [];
    // One after the other: a runtime opens one session at a time.
    for (const one of bytes) sessions.push(await openSession(ort, one, options));
    return new Cascade(ort, sessions, description);
  }

  constructor(ort, sessions, { spec }) {
    // Rows of the pyramid go through the first network in bands of about so many pixels, and crops so
    // many at once: memory does not grow with the picture.
    Object.assign(this, { ort, sessions, spec, bandPixels: 2 ** 18, batch: 256 });
  }

  /**
   * Find the faces of a picture, as `Detector.detect` does.
   *
   * @param settings `score` (of the last network), `overlap`, `cap`, `longest`.
   */
  async detect(picture, settings = {}) {
    checkPicture(picture);
    const start = performance.now();
    const [height, width] = sized(picture, settings.longest, null);
    const view = new Windowed({ data: resized(picture, height, width), width, height }, this.spec.resize);
    const call = { prepare: performance.now() - start, network: 0 };
    const { spec } = this;
    let found = await this.proposed(view, call);
    found = await this.judged(view, found, 1, REFINE_PX, spec.refine_floor, call);
    found = this.squared(this.suppressed(found, spec.refine_overlap), 1);
    const floor = settings.score ?? spec.postprocess.score_floor;
    found = await this.judged(view, found, 2, OUTPUT_PX, floor, call);
    const faces = this.faces(found, [width / picture.width, height / picture.height], settings);
    const decode = performance.now() - start - call.prepare - call.network;
    return { faces, ms: { ...call, decode } };
  }

  // The first network, over a pyramid of the picture.
  async proposed(view, call) {
    const { spec } = this;
    let found = [];
    for (const level of levels(spec, view.picture)) {
      const cells = cellsAlong(spec, level.rows);
      const step = Math.max(1, Math.floor(this.bandPixels / (CELL_STRIDE * level.columns)));
      let here = [];
      for (let first = 0; first < cells; first += step) {
        here = here.concat(await this.scanned(view, level, first, Math.min(first + step, cells), call));
      }
      found = found.concat(this.suppressed(this.best(here), spec.level_overlap));
    }
    return this.squared(this.suppressed(this.best(found), spec.proposal_overlap), 0);
  }

  // The first network, over some rows of the cells of one level.
  async scanned(view, { scale, rows, columns }, first, last, call) {
    const { spec } = this;
    const across = cellsAlong(spec, columns);
    const top = CELL_STRIDE * first;
    // The last row of cells takes what is left: pools may round up.
    const isEnd = last === cellsAlong(spec, rows);
    const bottom = isEnd ? rows : CELL_STRIDE * (last - 1) + CELL_PX;
    const band = timed(call, "prepare", () => view.rows(rows, columns, top, bottom));
    const raw = await this.answer(0, band, [1, 3, bottom - top, columns], (last - first) * across, call);
    const limit = f(logit(spec.proposal_floor));
    const found = [];
    raw.logits.forEach((value, i) => {
      if (value < limit) return;
      const box = cellBox(spec, i % across, first + Math.floor(i / across), scale);
      found.push({ box, score: sigmoid(value), offsets: raw.offsets.slice(4 * i, 4 * i + 4) });
    });
    return found;
  }

  // Show the crops of all boxes to a network; keep those that it scores high enough, best first.
  async judged(view, found, net, side, floor, call) {
    const kept = [];
    const count = net === 2 ? this.spec.landmarks : 0;
    for (let start = 0; start < found.length; start += this.batch) {
      const part = found.slice(start, start + this.batch);
      const crops = timed(call, "prepare", () =>
        view.crops(part.map(({ box }) => windowOf(this.spec, box, view.picture)), side));
      const raw = await this.answer(net, crops, [part.length, 3, side, side], part.length, call);
      part.forEach(({ box }, i) => {
        const score = sigmoid(raw.logits[i]);
        if (score < f(floor)) return;
        const points = count ? raw.landmarks.slice(2 * count * i, 2 * count * (i + 1)) : null;
        kept.push({ box, score, offsets: raw.offsets.slice(4 * i, 4 * i + 4), points });
      });
    }
    return this.best(kept);
  }

  // What a network answers to pixels of 0..255.
  async answer(net, pixels, shape, count, call) {
    const session = this.sessions[net];
    const images = timed(call, "prepare", () => normalised(this.spec.preprocess, pixels, shape));
    const start = performance.now();
    const tensor = new this.ort.Tensor("float32", images, shape);
    const given = await session.run({ [session.inputNames[0]]: tensor });
    call.network += performance.now() - start;
    const [logits, offsets, landmarks] =
      ["logits", "offsets", "landmarks"].map((name) => given[name]?.data ?? new Float32Array());
    const points = net === 2 ? 2 * this.spec.landmarks * count : landmarks.length;
    if (logits.length !== count || offsets.length !== 4 * count || landmarks.length !== points) {
      throw new SlimfaceError(
        `${NETS[net]} gives ${logits.length} logits, ${offsets.length} offsets and ${landmarks.length} ` +
          `sides of landmarks where ${count} boxes are asked for. Export the cascade again.`,
      );
    }
    if (![logits, offsets].every((values) => values.every(Number.isFinite))) {
      throw new SlimfaceError(`${NETS[net]} gives values that are no numbers. Export it again.`);
    }
    return { logits, offsets, landmarks };
  }

  best(found) {
    return [...found].sort((a, b) => b.score - a.score).slice(0, this.spec.proposals);
  }

  suppressed(found, overlap) {
    const boxes = found.map(({ box }) => box);
    return suppress(boxes, overlap, boxes.length, Number(this.spec.inclusive)).map((k) => found[k]);
  }

  // Move boxes by their offsets, and make them what the next network sees.
  squared(found, net) {
    return found.map((one) => ({ ...one, box: square(this.spec, moved(this.spec, one, net)) }));
  }

  // From what the third network has left to faces of the picture.
  faces(found, [sx, sy], settings) {
    const { spec } = this;
    const plan = spec.postprocess;
    // Landmarks are fractions of the box that the network has seen, not of the one it moves it to.
    found = found.slice(0, plan.pre_nms).map((one) => ({
      ...one, box: moved(spec, one, 2), points: one.points && pointsOf(spec, one),
    }));
    found = suppressBySmaller(found, plan.nms_overlap);
    if (settings.overlap != null) found = this.suppressed(found, settings.overlap);
    return found.slice(0, settings.cap ?? plan.cap).map(({ box, score, points }) => {
      const [x1, y1, x2, y2] = spec.square_last ? square(spec, box) : box;
      const end = Number(spec.inclusive);
      const face = { box: [x1 / sx, y1 / sy, (x2 + end) / sx, (y2 + end) / sy], score };
      if (points) face.landmarks = points.map(([x, y]) => [x / sx, y / sy]);
      return face;
    });
  }
}

/** Scale, rows and columns of each picture of the pyramid, largest first. */
export function levels(spec, { height, width }) {
  const { factor = 0.709, level_pixel: pixel = 1 } = spec;
  const found = [];
  for (let scale = CELL_PX / spec.min_face_px; ; scale *= factor) {
    const [rows, columns] = [height, width].map((side) => Math.trunc(side * scale + pixel));
    if (Math.min(rows, columns) <= CELL_PX) return found;
    found.push({ scale, rows, columns });
  }
}

/** How many cells the first network has along a side of so many pixels, from 12 on. */
export function cellsAlong(spec, side) {
  const roundedUp = Number(spec.architecture.options?.ceil ?? true);
  return Math.floor((side - CELL_PX + roundedUp) / CELL_STRIDE) + 1;
}

function cellBox(spec, x, y, scale) {
  const [left, top] = [CELL_STRIDE * x, CELL_STRIDE * y];
  const isFloor = spec.cells === "floor";
  const first = Number(isFloor);
  return [left + first, top + first, left + CELL_PX, top + CELL_PX]
    .map((side) => (isFloor ? Math.floor : roundHalfEven)(f(side / f(scale))));
}

// Which pixels of a picture a network gets to see of a box; at least one.
function windowOf(spec, box, { width, height }) {
  let [left, top, right, bottom] = box;
  if (spec.crop === "cut") {
    const cut = (side, most) => Math.min(Math.max(Math.trunc(side), 1), most);
    [left, top] = [cut(left, width) - 1, cut(top, height) - 1];
    [right, bottom] = [cut(right, width), cut(bottom, height)];
  } else {
    [left, top, right, bottom] = box.map(roundHalfEven);
    [right, bottom] = [right + 1, bottom + 1];
  }
  return [left, top, Math.max(right, left + 1), Math.max(bottom, top + 1)];
}

function sidesOf(spec, [x1, y1, x2, y2], net) {
  const more = spec.offset_pixels[net];
  return [f(f(x2 - x1) + more), f(f(y2 - y1) + more)];
}

function moved(spec, { box, offsets }, net) {
  const sides = sidesOf(spec, box, net);
  return box.map((side, i) => f(side + f(offsets[i] * sides[i % 2])));
}

function pointsOf(spec, { box, points }) {
  const sides = sidesOf(spec, box, 2);
  const first = Number(spec.crop === "cut");
  const at = (i) => f(f(box[i % 2] + f(points[i] * sides[i % 2])) - first);
  return Array.from({ length: points.length / 2 }, (_, k) => [at(2 * k), at(2 * k + 1)]);
}

// The square of the longer side around the same centre.
function square(spec, [x1, y1, x2, y2]) {
  const pixel = Number(spec.inclusive);
  const sides = [f(f(x2 - x1) + pixel), f(f(y2 - y1) + pixel)];
  const longest = Math.max(...sides);
  const [left, top] = [x1, y1].map((side, i) => f(side + f(f(sides[i] - longest) * 0.5)));
  const box = [left, top, f(f(left + longest) - pixel), f(f(top + longest) - pixel)];
  return spec.crop === "pad" ? box.map(roundHalfEven) : box;
}

// By the share of the smaller box, last pixels included: a small box within a large one goes.
function suppressBySmaller(found, overlap) {
  const areaOf = ([x1, y1, x2, y2]) =>
    f(Math.max(f(f(x2 - x1) + 1), 0) * Math.max(f(f(y2 - y1) + 1), 0));
  const limit = f(overlap);
  const kept = [];
  for (const one of found) {
    const [ax1, ay1, ax2, ay2] = one.box;
    const isHit = kept.some(({ box }) => {
      const [bx1, by1, bx2, by2] = box;
      const wide = Math.max(f(f(Math.min(ax2, bx2) - Math.max(ax1, bx1)) + 1), 0);
      const high = Math.max(f(f(Math.min(ay2, by2) - Math.max(ay1, by1)) + 1), 0);
      const smaller = Math.max(Math.min(areaOf(one.box), areaOf(box)), 2 ** -126);
      return f(f(wide * high) / smaller) > limit;
    });
    if (!isHit) kept.push(one);
  }
  return kept;
}

// From planes of 0..255 to a network's input, in place where the order of colours stays.
function normalised({ mean = [0, 0, 0], scale = 1, colour = "rgb" }, pixels, [count, , height, width]) {
  const size = height * width;
  const images = colour === "rgb" ? pixels : new Float32Array(pixels.length);
  for (let plane = 0; plane < 3 * count; plane++) {
    const channel = plane % 3, shift = f(mean[channel]), factor = f(scale);
    const to = size * (colour === "rgb" ? plane : plane - channel + 2 - channel);
    for (let i = 0; i < size; i++) images[to + i] = f(pixels[plane * size + i] - shift) * factor;
  }
  return images;
}

function timed(call, part, work) {
  const start = performance.now();
  const result = work();
  call[part] += performance.now() - start;
  return result;
}

const logit = (score) =>
  score <= 0 ? -Infinity : score >= 1 ? Infinity : Math.log(score / (1 - score));

// In 32 bits many scores are 1, and of those the first goes before the others.
const sigmoid = (value) => f(1 / f(1 + f(Math.exp(-Math.max(value, -87)))));
