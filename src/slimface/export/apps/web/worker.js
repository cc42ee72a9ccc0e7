// The network runs here, so that the page never stutters.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { open } from "./cascade.js";

ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
// Several threads need shared memory, which a page has only behind COOP and COEP headers.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

let detector;

const answers = {
  async open() {
    const { name, licence, spec, files: [file] } = await (await fetched("spec.json")).json();
    detector = await open(ort, bytesOf, { spec, ...file }, { executionProviders: ["wasm"] });
    return { name, licence, spec, canvas: file.canvas, threads: ort.env.wasm.numThreads };
  },
  detect: ({ picture, settings }) => detector.detect(picture, settings),
};

self.onmessage = async ({ data: { id, task, content } }) => {
  try {
    self.postMessage({ id, result: await answers[task](content) });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};

const bytesOf = async (path) => new Uint8Array(await (await fetched(path)).arrayBuffer());

async function fetched(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) {
    throw new Error(`${name} is not there (${answer.status}). Copy the whole folder to the server.`);
  }
  return answer;
}
