// The page is complete without this: scripts add the viewer, filters, colours and files to save.
const byId = (id) => document.getElementById(id);
const root = document.documentElement;

// ------------------------------------------------------------------ colours
const themes = ["", "dark", "light"];
const showTheme = () => {
  byId("theme").textContent = `Colours: ${root.dataset.colours || "as the system"}`;
};
byId("theme").addEventListener("click", () => {
  root.dataset.colours = themes[(themes.indexOf(root.dataset.colours) + 1) % themes.length];
  try {
    localStorage.setItem("colours", root.dataset.colours);
  } catch { /* kept until the page is closed */ }
  showTheme();
});
showTheme();

// ------------------------------------------------------------ many samples
// From the 25th on the samples of a split are text that becomes elements when there is time, or when they are needed.
function fill(within, most = Infinity) {
  const left = [...within.querySelectorAll("script.later")];
  for (const text of left.slice(0, most)) text.outerHTML = text.textContent;
  return left.length > most;
}
const soon = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
const fillSome = () => { if (fill(document, 10)) soon(fillSome); };
addEventListener("load", () => soon(fillSome));

// ------------------------------------------------------------------ filters
function arrange(form) {
  const section = byId(form.dataset.for);
  fill(section);
  const cards = form.cards ??= [...section.querySelectorAll(".sample")].map((card, order) => ({
    card, order, keyword: card.dataset.keyword, text: card.querySelector("figcaption").textContent.toLowerCase(),
    classes: JSON.parse(card.dataset.classes), scores: JSON.parse(card.dataset.scores),
  }));
  const chosen = (name) => form.elements[name]?.value ?? "";
  const words = chosen("words").toLowerCase().trim(), sort = chosen("sort");
  const scored = sort.trim() !== "";
  for (const name of ["low", "high"]) if (form.elements[name]) form.elements[name].disabled = !scored;
  const low = scored && chosen("low") !== "" ? Number(chosen("low")) : -Infinity;
  const high = scored && chosen("high") !== "" ? Number(chosen("high")) : Infinity;
  const bounded = low > -Infinity || high < Infinity;
  const fits = (entry) => entry.text.includes(words)
    && (!chosen("keyword") || entry.keyword === chosen("keyword"))
    && (!chosen("class") || entry.classes.includes(chosen("class")))
    && (!bounded || (entry.scores[sort] >= low && entry.scores[sort] <= high));
  const sign = form.elements.falling.checked ? -1 : 1;
  const compare = (a, b) => {
    if (scored) {
      const [x, y] = [a.scores[sort], b.scores[sort]];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || a.order - b.order;
      return sign * (x - y) || a.order - b.order;
    }
    if (sort) return sign * (a.keyword < b.keyword ? -1 : a.keyword > b.keyword ? 1 : 0) || a.order - b.order;
    return sign * (a.order - b.order);
  };
  const kept = cards.filter(fits).sort(compare), keptSet = new Set(kept);
  for (const entry of cards) entry.card.hidden = !keptSet.has(entry);
  const first = section.querySelector(".first"), more = section.querySelector(".more");
  const places = [...kept, ...cards.filter((entry) => !keptSet.has(entry))].map((entry) => entry.card);
  first.append(...places.slice(0, 4));
  if (more) {
    more.append(...places.slice(4));
    more.hidden = kept.length <= 4;
    more.querySelector("summary").textContent = `${kept.length - 4} more images`;
  }
  form.querySelector("output").textContent = `${kept.length} of ${cards.length} images`;
}
for (const form of document.querySelectorAll(".filters")) {
  form.addEventListener("input", () => arrange(form));
  form.addEventListener("submit", (event) => event.preventDefault());
}

// ------------------------------------------------------------------- values
const quantities = JSON.parse(byId("quantities").textContent);
const decoded = new Map(); // address of a sample's numbers → promise of its maps
let arrived;
window.reportValues = (maps) => { arrived = maps; };

async function pixels(map) {
  const image = new Image();
  image.src = `data:image/png;base64,${map.png}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { ...map, width: image.width, height: image.height, codes: context.getImageData(0, 0, image.width, image.height).data };
}
function valuesOf(address) {
  if (!decoded.has(address)) {
    decoded.set(address, new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = async () => {
        const maps = arrived;
        for (const kinds of Object.values(maps)) for (const kind in kinds) kinds[kind] = await pixels(kinds[kind]);
        resolve(maps);
      };
      script.onerror = () => resolve({});
      document.head.append(script);
    }));
  }
  return decoded.get(address);
}
function valueAt(map, kind, quantity, x, y) {
  const column = Math.min(map.width - 1, Math.floor(x * map.width));
  const row = Math.min(map.height - 1, Math.floor(y * map.height));
  const [red, green, blue, alpha] = map.codes.slice(4 * (row * map.width + column), 4 * (row * map.width + column) + 4);
  if (!alpha) return `${kind} none`;
  const value = (code) => map.low + (map.high - map.low) * code / 255;
  const text = (code) => String(Number(value(code).toPrecision(3)));
  if (kind === "error") return `error ${quantity.error.two ? (value(red) ? "wrong" : "none") : text(red) + quantity.error.unit}`;
  if (quantity.classes) return `${kind} ${quantity.classes[red + 256 * green] ?? "unknown"}`;
  const three = [red, green, blue];
  if (quantity.axes.length) return `${kind} ${three.map((code, axis) => `${quantity.axes[axis]} ${text(code)}`).join(", ")}`;
  return `${kind} ${text(red)}${quantity.unit ? " " + quantity.unit : ""}`;
}

// ------------------------------------------------------------------- viewer
const viewer = byId("viewer"), stage = byId("stage"), layers = byId("layers"), divide = byId("divide"), against = byId("against");
let figures = [], at = 0, zoom = 1, maps = {};

const holder = (figure) => figure.closest("[data-values]");
function mate(figure, kind) {
  const modality = figure.dataset.modality;
  const same = modality ? `[data-modality="${modality}"]` : "";
  return holder(figure)?.querySelector(kind === "image" ? 'img[data-kind="image"]' : `img[data-kind="${kind}"]${same}`);
}
function source(layer, figure) {
  layer.src = figure.getAttribute("src");
  layer.alt = figure.alt;
  layer.classList.toggle("smooth", figure.dataset.kind === "image");
}
function divideAt() {
  const other = against.value && mate(figures[at], against.value);
  const shown = other && other !== figures[at];
  byId("left").hidden = byId("divider").hidden = !shown;
  byId("divide-label").hidden = !shown;
  if (shown) source(byId("left"), other);
  byId("right").style.clipPath = shown ? `inset(0 0 0 ${divide.value}%)` : "none";
  byId("divider").style.left = `${divide.value}%`;
  divide.setAttribute("aria-valuetext", `${divide.value} % ${against.value}, then ${figures[at].dataset.kind}`);
}
function setZoom(value) {
  zoom = Math.min(16, Math.max(1, value));
  layers.style.setProperty("--zoom", zoom);
  byId("zoom-level").textContent = `${Math.round(100 * zoom)} %`;
}
async function show(index) {
  at = (index + figures.length) % figures.length;
  const figure = figures[at];
  for (const option of against.options) {
    option.disabled = option.value !== "" && (!mate(figure, option.value) || mate(figure, option.value) === figure);
  }
  source(byId("right"), figure);
  layers.style.setProperty("--aspect", figure.getAttribute("width") / figure.getAttribute("height"));
  byId("viewer-title").textContent = `${at + 1} of ${figures.length} · ${figure.alt}`;
  byId("readout").textContent = "Point at the figure to read its values.";
  divideAt();
  maps = {};
  const address = holder(figure)?.dataset.values;
  const found = address ? await valuesOf(address) : {};
  if (figures[at] === figure) maps = found;
}
function step(by, sample) {
  let index = at + by;
  if (sample) while (index > 0 && index < figures.length - 1 && holder(figures[index]) === holder(figures[at])) index += by;
  show(index);
}
function open(figure) {
  fill(document);
  figures = [...document.querySelectorAll("img.zoom")].filter((image) => !image.closest("[hidden]"));
  setZoom(1);
  viewer.showModal();
  stage.focus();
  show(figures.indexOf(figure));
}
function readAt(event) {
  const box = layers.getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
  const own = figures[at].dataset.modality;
  const lines = Object.entries(maps).filter(([name]) => !own || name === own).map(([name, kinds]) => {
    const texts = Object.entries(kinds).map(([kind, map]) => valueAt(map, kind, quantities[name], x, y));
    return `${quantities[name].title}: ${texts.join(" · ")}`;
  });
  byId("readout").textContent = lines.join("\n") || "No values here.";
}
document.addEventListener("click", (event) => {
  const figure = event.target.closest("img.zoom") ?? event.target.closest(".open")?.querySelector("img.zoom");
  if (figure) open(figure);
  else if (event.target === viewer) viewer.close();
});
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => viewer.close());
byId("zoom-in").addEventListener("click", () => setZoom(zoom * 1.5));
byId("zoom-out").addEventListener("click", () => setZoom(zoom / 1.5));
divide.addEventListener("input", divideAt);
against.addEventListener("change", divideAt);
layers.addEventListener("pointermove", readAt);
layers.addEventListener("pointerdown", readAt);
const keys = {
  ArrowRight: () => step(1), j: () => step(1), ArrowLeft: () => step(-1), k: () => step(-1),
  PageDown: () => step(1, true), PageUp: () => step(-1, true), Home: () => show(0), End: () => show(-1),
  "+": () => setZoom(zoom * 1.5), "=": () => setZoom(zoom * 1.5), "-": () => setZoom(zoom / 1.5), 0: () => setZoom(1),
};
viewer.addEventListener("keydown", (event) => {
  const typed = event.target === divide || event.target === against;
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey && event.key !== "+" || !keys[event.key]) return;
  if (typed && !["j", "k", "+", "-"].includes(event.key)) return; // the slider and the list have their own use for it
  event.preventDefault();
  keys[event.key]();
});

// -------------------------------------------------------------- files to save
function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
function field(text) {
  // A spreadsheet would run what looks like a formula.
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
function csvOf(table) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.cells]);
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const columns = heads.flatMap((head, index) => {
    const name = head.dataset.name ?? head.textContent.trim();
    const plain = [name, (cell) => cell.dataset.value ?? cell.textContent.trim()];
    if (!rows.some((cells) => cells[index].dataset.low)) return [[plain[0], index, plain[1]]];
    return [[plain[0], index, plain[1]], ...["low", "high"].map((end) => [`${name} ${end}`, index, (cell) => cell.dataset[end] ?? ""])];
  });
  const lines = rows.map((cells) => columns.map(([, index, value]) => value(cells[index])));
  return [columns.map(([name]) => name), ...lines].map((line) => line.map(field).join(",")).join("\n") + "\n";
}
function svgOf(plot) {
  const copy = plot.cloneNode(true), style = getComputedStyle(root);
  const [, , width, height] = plot.getAttribute("viewBox").split(" ");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("font-family", "sans-serif");
  const text = new XMLSerializer().serializeToString(copy);
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
}
function saver(after, kind, title, text) {
  const button = document.createElement("button");
  const name = title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "report";
  Object.assign(button, { type: "button", className: "save", textContent: kind });
  button.setAttribute("aria-label", `Save as ${kind}: ${title}`);
  button.addEventListener("click", () => save(`${name}.${kind.toLowerCase()}`, kind === "CSV" ? "text/csv" : "image/svg+xml", text()));
  after.after(button);
}
const heading = (element) => element.closest("section").querySelector("h2").textContent.trim();
for (const table of document.querySelectorAll("table.scores, table.plain")) {
  const near = table.closest(".tables")?.previousElementSibling?.textContent ?? heading(table);
  saver(table, "CSV", `${near} ${table.caption?.firstChild.textContent ?? ""}`.trim(), () => csvOf(table));
}
for (const plot of document.querySelectorAll("svg.plot")) {
  const name = plot.closest("figure, article")?.querySelector("figcaption, h3")?.textContent.trim() ?? heading(plot);
  saver(plot, "SVG", `${name} ${plot.getAttribute("aria-label")}`, () => svgOf(plot));
}
