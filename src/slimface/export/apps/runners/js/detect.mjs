// Faces in pictures with Node.js, from a slimface bundle:
//
//   npm install onnxruntime-node
//   node detect.mjs photo.ppm      faces as JSON
//   node detect.mjs --golden       proves this copy on the bundle's golden picture
//
// Node reads no JPEG or PNG by itself; with a reader such as sharp, hand RGBA bytes to
// `Detector.detect`. In a browser take slimface.js alone, with onnxruntime-web.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { open as openModel } from "./cascade.js";
import { prepare, SlimfaceError } from "./slimface.js";

const BUNDLE = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const READS_VERSION = 1;

/** Open the first ONNX file of a bundle. */
async function open(bundle, ort) {
  const told = JSON.parse(readFileSync(join(bundle, "spec.json"), "utf8"));
  if (!(told.version <= READS_VERSION)) {
    throw new SlimfaceError(
      `The bundle has version ${told.version}; this file reads up to ${READS_VERSION}. ` +
        "Take the runner of the same bundle.",
    );
  }
  const file = told.files.find(({ format }) => format === "onnx");
  if (!file) throw new SlimfaceError("The bundle has no ONNX file. Export it with onnx among its files.");
  const read = (path) => readFileSync(join(bundle, path));
  const detector = await openModel(ort, read, { spec: told.spec, ...file });
  return { detector, golden: join(bundle, file.golden) };
}

/** Read a PPM (P6, 8 bits) as RGBA. */
function readPpm(path) {
  const bytes = readFileSync(path);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  const [width, height] = header ? [Number(header[1]), Number(header[2])] : [0, 0];
  const pixels = bytes.subarray(header?.[0].length);
  if (!(width > 0 && height > 0) || pixels.length !== 3 * width * height) {
    throw new SlimfaceError(`${path} is no whole PPM of 8 bits. Convert it: convert in.jpg out.ppm`);
  }
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
  return { data, width, height };
}

async function prove(detector, folder) {
  const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
  const picture = readPpm(join(folder, "picture.ppm"));
  const floats = (name) => new Float32Array(new Uint8Array(readFileSync(join(folder, `${name}.f32`))).buffer);
  const wrong = [];
  const judge = (what, far, allowed) => {
    const right = far <= allowed;
    console.log(`${what}: ${far.toPrecision(2)} apart, ${allowed} allowed: ${right ? "passed" : "FAILED"}`);
    if (!right) wrong.push(what);
  };
  // What a cascade feeds its networks depends on their answers: it has no such tensors.
  const sides = [["images", null], ["resized", golden.resized_longest_px]];
  for (const [name, longest] of sides.filter(([name]) => name in golden.tensors)) {
    const { images, ratio } = prepare(detector.spec, picture, longest, detector.canvas);
    const wanted = floats(name);
    let far = images.length === wanted.length ? 0 : Infinity;
    for (let i = 0; i < wanted.length; i++) far = Math.max(far, Math.abs(wanted[i] - images[i]));
    // One byte is what resizing may round to the other side.
    const isSame = ratio.every((side) => side === 1);
    judge(name, far, isSame ? 1e-4 : 1.01 * detector.spec.preprocess.scale);
  }
  const { faces } = await detector.detect(picture);
  judge("number of faces", Math.abs(faces.length - golden.faces.length), 0);
  const apart = (one, other) => {
    const [a, b] = [one, other].map(({ box, landmarks = [] }) => [box, landmarks].flat(2));
    return a.length === b.length ? Math.max(...a.map((side, i) => Math.abs(side - b[i]))) : Infinity;
  };
  let [box, score] = [0, 0];
  for (const face of golden.faces) {
    // The nearest is its partner; scores that are equal but for rounding come in any order.
    const best = faces.reduce((a, b) => (apart(a, face) <= apart(b, face) ? a : b), faces[0] ?? {});
    box = Math.max(box, apart(best, face));
    score = Math.max(score, Math.abs(best.score - face.score));
  }
  judge("corners and landmarks", box, golden.tolerance.box_px);
  judge("scores", score, golden.tolerance.score);
  return wrong.length;
}

async function main([what, bundle = BUNDLE]) {
  if (!what) throw new SlimfaceError("Usage: node detect.mjs (PICTURE.ppm | --golden) [BUNDLE]");
  const ort = await import("onnxruntime-node").catch(() => {
    throw new SlimfaceError("onnxruntime-node is not installed. Run: npm install onnxruntime-node");
  });
  const { detector, golden } = await open(bundle, ort);
  if (what === "--golden") return (await prove(detector, golden)) ? 1 : 0;
  const { faces } = await detector.detect(readPpm(what));
  console.log(JSON.stringify({ picture: what, faces }));
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SlimfaceError) && !error.code) throw error;
  console.error(`Error: ${error.message}`);
  process.exitCode = 1;
}
