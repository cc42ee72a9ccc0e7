// The page: pictures in, boxes drawn. What finds them is in worker.js and slimface.js.

const at = (id) => document.getElementById(id);
const [main, canvas, video, stage] = ["main", "canvas", "video", "stage"].map(at);
const pen = canvas.getContext("2d", { willReadFrequently: true });
const MAX_SIDE = 4096;

let shown = null; // { bitmap, name }
let stream = null;
let turn = 0;

// A detection that was overtaken by a newer one is not drawn.
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};
worker.onerror = (event) => fail(new Error(event.message || "The worker could not be started."));

function ask(task, content, handed = []) {
  return new Promise((resolve, reject) => {
    const id = ++turn;
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, task, content }, handed);
  });
}

// Pictures are made smaller for the network, never larger.
const settings = ({ width, height }) => ({
  score: Number(at("score").value),
  longest: Math.min(Number(at("longest").value), Math.max(width, height)),
});

async function start() {
  // Fetched while the worker opens the model; what goes wrong is said when it is its turn.
  const sample = fetchSample();
  sample.catch(() => {});
  const { name, licence, spec, canvas: fixed, threads } = await ask("open");
  at("score").value = Math.min(0.95, Math.max(0.05, spec.postprocess.score_floor));
  if (fixed) at("longest").disabled = true;
  at("model").textContent =
    `Model ${name}, ONNX Runtime Web (WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}). ` +
    (licence ? `Licence: ${licence}.` : "");
  label();
  await show(await sample, "the sample");
}

async function fetchSample() {
  const answer = await fetch("sample.png");
  if (!answer.ok) throw new Error("sample.png is not there. Copy the whole folder to the server.");
  return answer.blob();
}

const showSample = async () => show(await fetchSample(), "the sample");

async function show(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is no picture this browser can read. Convert it to JPEG or PNG.`);
  }
  stopCamera();
  shown = { bitmap, name };
  await detect();
}

function pixelsOf(source, width, height) {
  const fit = Math.min(1, MAX_SIDE / Math.max(width, height));
  const own = new OffscreenCanvas(Math.round(width * fit), Math.round(height * fit));
  const brush = own.getContext("2d", { willReadFrequently: true });
  brush.drawImage(source, 0, 0, own.width, own.height);
  return brush.getImageData(0, 0, own.width, own.height);
}

async function detect() {
  if (!shown) return;
  main.dataset.state = "busy";
  const asked = shown;
  const image = pixelsOf(asked.bitmap, asked.bitmap.width, asked.bitmap.height);
  const { data, width, height } = image;
  const found = await ask("detect", { picture: { data, width, height }, settings: settings(image) });
  if (asked !== shown) return;
  draw(image, found.faces);
  tell(found, asked.name);
}

function draw(image, faces) {
  canvas.width = image.width;
  canvas.height = image.height;
  pen.putImageData(image, 0, 0);
  const line = Math.max(2, Math.round(Math.max(image.width, image.height) / 300));
  pen.lineWidth = line;
  pen.font = `${8 * line}px system-ui, sans-serif`;
  for (const { box: [x1, y1, x2, y2], score, landmarks = [] } of faces) {
    pen.strokeStyle = "#00e5d5";
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = score.toFixed(2);
    const top = Math.max(0, y1 - 9 * line);
    pen.fillStyle = "#10282acc";
    pen.fillRect(x1 - line / 2, top, pen.measureText(text).width + 2 * line, 9 * line);
    pen.fillStyle = "#00e5d5";
    pen.fillText(text, x1 + line / 2, top + 7.5 * line);
    pen.fillStyle = "#ffd166";
    // Points must not hide a small face.
    const radius = Math.min(line, Math.max(1, (x2 - x1) / 20));
    for (const [x, y] of landmarks) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fill();
    }
  }
}

function tell({ faces, ms }, name) {
  for (const [part, value] of Object.entries(ms)) at(`ms-${part}`).textContent = value.toFixed(1);
  const count = faces.length === 1 ? "1 face" : `${faces.length} faces`;
  const total = Object.values(ms).reduce((sum, value) => sum + value, 0);
  // A webcam would talk without end to a screen reader: it is told only when the number changes.
  const said = stream ? `${count} in view.` : `${count} in ${name}, ${total.toFixed(0)} ms.`;
  if (at("status").textContent !== said) at("status").textContent = said;
  canvas.setAttribute("aria-label", `${name} with ${count} marked`);
  at("error").textContent = "";
  at("faces").replaceChildren(
    ...faces.map(({ box, score }) => {
      const item = document.createElement("li");
      const [x1, y1, x2, y2] = box.map(Math.round);
      item.textContent = `${score.toFixed(3)}: ${x2 - x1} × ${y2 - y1} pixels at ${x1}, ${y1}`;
      return item;
    }),
  );
  main.dataset.faces = JSON.stringify(faces);
  main.dataset.ms = JSON.stringify(ms);
  main.dataset.readyAfter = String(Math.round(performance.now()));
  main.dataset.state = "ready";
}

async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("The webcam needs https or localhost. Open the page there, or choose a picture.");
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch (error) {
    throw new Error(`The webcam cannot be used (${error.name}). Allow it, or choose a picture.`);
  }
  shown = null;
  video.srcObject = stream;
  await video.play();
  at("camera").setAttribute("aria-pressed", "true");
  at("camera").textContent = "Stop webcam";
  const mine = stream;
  while (stream === mine) {
    const image = pixelsOf(video, video.videoWidth, video.videoHeight);
    const { data, width, height } = image;
    const found = await ask("detect", { picture: { data, width, height }, settings: settings(image) });
    if (stream !== mine) return;
    draw(image, found.faces);
    tell(found, "the webcam");
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  video.srcObject = null;
  at("camera").setAttribute("aria-pressed", "false");
  at("camera").textContent = "Webcam";
}

function label() {
  at("score-value").textContent = Number(at("score").value).toFixed(2);
  at("longest-value").textContent = at("longest").value;
}

function fail(error) {
  at("error").textContent = error.message;
  at("status").textContent = "";
  main.dataset.state = "failed";
}

const guarded = (work) => (...words) => Promise.resolve(work(...words)).catch(fail);

at("file").addEventListener("change", guarded(async ({ target }) => {
  const [file] = target.files;
  if (file) await show(file, file.name);
}));
at("sample").addEventListener("click", guarded(showSample));
at("camera").addEventListener("click", guarded(() => (stream ? stopCamera() : startCamera())));
for (const id of ["score", "longest"]) {
  at(id).addEventListener("input", label);
  at(id).addEventListener("change", guarded(detect));
}
document.addEventListener("paste", guarded(async ({ clipboardData }) => {
  const file = [...clipboardData.files][0];
  if (file) await show(file, "the pasted picture");
}));
for (const kind of ["dragenter", "dragover"]) {
  stage.addEventListener(kind, (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
}
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", guarded(async (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) await show(file, file.name);
}));

start().catch(fail);
