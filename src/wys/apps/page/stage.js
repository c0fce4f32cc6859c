// The stage: shows the image under its relevance map, outlines the mask, takes threshold and brush.
// Runs once for each page, with `element`, `props`, `trigger`, `upload` and `watch` from Gradio.
// Python gives props.scene; props.value = {threshold, strokes} goes back with the next request.

const $ = (name) => element.querySelector(`[data-part="${name}"]`);
const canvas = $("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const paint = document.createElement("canvas"); // strokes: red adds, blue takes
const brush = paint.getContext("2d", { willReadFrequently: true });
const LONG_SIDE = 640; // of the canvas; its size on the screen is up to the style sheet
const DARK = 0xff18080a; // as 0xAABBGGRR
const LIGHT = 0xffffffff;

let scene = { picture: null, map: null };
let picture = null; // ImageData of the image alone
let heat = null; // ImageData of the map's colours over the image in grey
let levels = null; // the map at the canvas's size
let frame = null; // ImageData that is drawn on
let inside = null; // the mask, one byte a pixel
let strokes = [];
let threshold = null; // null: the editor's own
let mode = "look";
let hot = true;

// ---- what is drawn

function upsample(map, width, height) {
  // Bilinear between the centres of cells, as Python does it before it compares.
  const bytes = Uint8Array.from(atob(map.values), (c) => c.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  const out = new Float32Array(width * height);
  const place = (i, to, from) => {
    const at = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const low = Math.min(Math.floor(at), from - 1);
    return [low, Math.min(low + 1, from - 1), at - low];
  };
  const columns = Array.from({ length: width }, (_, x) => place(x, width, map.width));
  for (let y = 0; y < height; y++) {
    const [above, below, v] = place(y, height, map.height);
    const top = above * map.width;
    const bottom = below * map.width;
    for (let x = 0; x < width; x++) {
      const [left, right, u] = columns[x];
      const first = values[top + left] * (1 - u) + values[top + right] * u;
      const second = values[bottom + left] * (1 - u) + values[bottom + right] * u;
      out[y * width + x] = first * (1 - v) + second * v;
    }
  }
  return out;
}

function heated(image, values) {
  const out = new ImageData(new Uint8ClampedArray(image.data), image.width, image.height);
  const data = out.data;
  for (let i = 0; i < values.length; i++) {
    const grey = (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3;
    const colour = props.colours[Math.round(255 * Math.min(1, Math.max(0, values[i])))];
    for (let c = 0; c < 3; c++) data[4 * i + c] = 0.35 * grey + 0.65 * colour[c];
  }
  return out;
}

function lowest(level) {
  // Where a mask begins: as masks.py has it, in its 32 bits.
  level = Math.fround(level);
  const room = Math.max(0, Math.min(level / 2, Math.fround(1 - level)));
  return Math.fround(level - Math.min(room, Math.fround(scene.map?.softness ?? 0)));
}

function fillInside() {
  // Returns the number of pixels in the mask.
  const level = lowest(threshold ?? scene.map?.threshold ?? 2);
  const painted = strokes.length
    ? new Uint32Array(brush.getImageData(0, 0, paint.width, paint.height).data.buffer) : null;
  let count = 0;
  for (let i = 0; i < inside.length; i++) {
    let value = levels !== null && levels[i] >= level ? 1 : 0;
    if (painted !== null && painted[i] >>> 31) value = painted[i] & 0x80 ? 1 : 0;
    inside[i] = value;
    count += value;
  }
  return count;
}

function outline() {
  const { width, height } = frame;
  const pixels = new Uint32Array(frame.data.buffer);
  const border = [];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (inside[i] === 0) continue;
      if (
        (x > 0 && inside[i - 1] === 0) || (x < width - 1 && inside[i + 1] === 0) ||
        (y > 0 && inside[i - width] === 0) || (y < height - 1 && inside[i + width] === 0)
      ) border.push(i);
    }
  }
  const ring = (radius, colour) => {
    for (const i of border) {
      const x = i % width;
      const left = Math.max(0, x - radius);
      const right = Math.min(width, x + radius + 1);
      for (let row = -radius; row <= radius; row++) {
        const start = i - x + row * width;
        if (start >= 0 && start < pixels.length) pixels.fill(colour, start + left, start + right);
      }
    }
  };
  // Light on dark, so that it shows on every colour of the map.
  ring(3, DARK);
  ring(1, LIGHT);
}

function draw() {
  if (!picture) return;
  const begun = performance.now();
  frame.data.set((hot && heat ? heat : picture).data);
  const covered = fillInside() / inside.length;
  outline();
  pen.putImageData(frame, 0, 0);
  const level = threshold ?? scene.map?.threshold;
  $("level").textContent = level === undefined ? "–" : level.toFixed(2);
  $("covered").textContent =
    scene.map || strokes.length ? `The mask covers ${(100 * covered).toFixed(1)}% of the image.` : "";
  $("undo").disabled = $("clear").disabled = strokes.length === 0;
  // For whoever wants to know how quick this is.
  canvas.dataset.milliseconds = (performance.now() - begun).toFixed(1);
  canvas.dataset.covered = covered;
}

// ---- what comes from Python

async function load() {
  const given = props.scene ?? { picture: null, map: null };
  const same = scene.picture === given.picture;
  const sameMap = same && scene.map?.values === given.map?.values;
  scene = given;
  element.dataset.state = scene.picture ? (scene.map ? "map" : "image") : "empty";
  if (!scene.picture) {
    picture = heat = levels = null;
    return forget();
  }
  if (!same) {
    const image = new Image();
    image.src = scene.picture;
    await image.decode();
    const scale = LONG_SIDE / Math.max(scene.width, scene.height);
    canvas.width = paint.width = Math.max(1, Math.round(scene.width * scale));
    canvas.height = paint.height = Math.max(1, Math.round(scene.height * scale));
    canvas.style.setProperty("--shape", canvas.width / canvas.height);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    picture = pen.getImageData(0, 0, canvas.width, canvas.height);
    frame = pen.createImageData(picture);
    inside = new Uint8Array(canvas.width * canvas.height);
    canvas.setAttribute("aria-label", `The image ${scene.name}`);
  }
  levels = scene.map ? upsample(scene.map, canvas.width, canvas.height) : null;
  heat = levels ? heated(picture, levels) : null;
  if (!sameMap) forget();
  draw();
}

function forget() {
  strokes = [];
  threshold = null;
  repaint();
  choose("look");
  $("threshold").value = scene.map?.threshold ?? 0.5;
  send();
}

function send() {
  props.value = { threshold, strokes };
}

// ---- threshold and view

$("threshold").addEventListener("input", (event) => {
  threshold = Number(event.target.value);
  draw();
});
$("threshold").addEventListener("change", send);
$("reset").addEventListener("click", () => {
  threshold = null;
  $("threshold").value = scene.map.threshold;
  send();
  draw();
});
$("heat").addEventListener("click", () => {
  hot = !hot;
  $("heat").setAttribute("aria-pressed", String(hot));
  draw();
});

// ---- the brush

function radius() {
  return (Number($("size").value) / 100) * Math.max(scene.width, scene.height) / 2;
}

function repaint() {
  brush.clearRect(0, 0, paint.width, paint.height);
  strokes.forEach((stroke) => trace(stroke));
}

function trace(stroke, from = 0) {
  const scale = canvas.width / scene.width;
  brush.strokeStyle = brush.fillStyle = stroke.adds ? "#ff0000" : "#0000ff";
  brush.lineWidth = 2 * Math.max(stroke.radius, 0.5) * scale;
  brush.lineCap = brush.lineJoin = "round";
  brush.beginPath();
  const points = stroke.points.slice(Math.max(0, from - 1));
  points.forEach(([x, y], i) => brush[i ? "lineTo" : "moveTo"](x * scale, y * scale));
  if (points.length === 1) brush.lineTo(points[0][0] * scale, points[0][1] * scale);
  brush.stroke();
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const round = (value) => Math.round(10 * value) / 10;
  return [
    round(((event.clientX - box.left) / box.width) * scene.width),
    round(((event.clientY - box.top) / box.height) * scene.height),
  ];
}

function choose(name) {
  mode = name;
  for (const button of element.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  element.dataset.mode = mode;
}

let current = null;
canvas.addEventListener("pointerdown", (event) => {
  if (mode === "look" || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  current = { adds: mode === "add", radius: radius(), points: [point(event)] };
  strokes.push(current);
  trace(current);
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  follow(event);
  if (!current) return;
  current.points.push(point(event));
  trace(current, current.points.length - 1);
  draw();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    if (current) send();
    current = null;
  });
}

function follow(event) {
  // A ring shows how far the brush reaches.
  const box = canvas.getBoundingClientRect();
  const size = (2 * radius() * box.width) / scene.width;
  const ring = $("ring").style;
  ring.width = ring.height = `${size}px`;
  ring.left = `${event.clientX - box.left + canvas.offsetLeft - size / 2}px`;
  ring.top = `${event.clientY - box.top + canvas.offsetTop - size / 2}px`;
}

for (const button of element.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => choose(button.dataset.mode));
}
$("undo").addEventListener("click", () => {
  strokes.pop();
  repaint();
  send();
  draw();
});
$("clear").addEventListener("click", () => {
  strokes = [];
  repaint();
  send();
  draw();
});

// ---- images from the visitor

// While a job runs nothing else begins: its end would put back the image and the words it began with.
const working = () => document.querySelector(".told.busy") !== null;
const RESTING = ["#use", "#history", "#variants", '[data-part="samples"]', '[data-part="new"]'];
new MutationObserver(() => {
  const busy = working();
  for (const part of document.querySelectorAll(RESTING.join())) {
    if (part.inert !== busy) part.inert = busy;
  }
}).observe(document.body, { childList: true, subtree: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.closest?.("#instruction") && working()) {
    event.preventDefault();
    event.stopPropagation();
  }
}, true);

async function take(file) {
  if (!file || working()) return;
  if (file.size > props.most_bytes) return trigger("refused", { reason: "size" });
  element.dataset.busy = "true";
  try {
    const stored = await upload(file);
    trigger("chosen", { path: stored.path, name: file.name });
  } catch {
    trigger("refused", { reason: "upload" });
  } finally {
    delete element.dataset.busy;
    $("file").value = "";
  }
}

$("file").addEventListener("change", (event) => take(event.target.files[0]));
// Anywhere on the page: the browser would leave it for a file that is dropped beside the stage.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element.dataset.over = "true";
});
document.addEventListener("dragleave", () => delete element.dataset.over);
document.addEventListener("drop", (event) => {
  event.preventDefault();
  delete element.dataset.over;
  take(event.dataTransfer.files[0]);
});
$("new").addEventListener("click", () => trigger("cleared"));

props.samples.forEach((sample, index) => {
  const card = document.createElement("button");
  card.type = "button";
  card.className = "card";
  const image = document.createElement("img");
  image.src = sample.picture;
  image.alt = "";
  const words = document.createElement("span");
  words.textContent = sample.instruction;
  card.append(image, words);
  card.addEventListener("click", () => trigger("sample", { index }));
  $("samples").append(card);
});

// One after the other: a map must not meet the image before its own.
let loaded = load();
watch("scene", () => {
  loaded = loaded.then(load, load);
});
