"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const AT_ONCE = 120; // cards that are added together while scrolling
const HIT = 14; // pixels of the screen within which a landmark is the one meant
const scored = data.kind === "results";
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const list = $("faces");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function shape(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const number = (value, digits) => (value === null ? "unknown" : value.toFixed(digits));

// What is said of a face.
const photoOf = (face) => data.photos[face.photo];
function headline(face) {
  if (scored) return `score ${number(face.score, 2)}`;
  return face.nme === null ? "not found" : `NME ${number(face.nme, 2)} %`;
}
function facts(face) {
  const parts = [headline(face), `${Math.round(face.size)} px`];
  if (scored) parts.push(face.error === null ? "expected error unknown" : `expected error ${number(face.error, 1)} px`);
  else if (face.error !== null) parts.push(`mean error ${number(face.error, 1)} px`);
  return parts;
}
const describe = (face) => `${photoOf(face).name}, face ${face.face}: ${facts(face).join(", ")}`;

// From red over yellow to blue, which also those tell apart who see no red or green.
function colour(score) {
  const stops = [[0.2, 214, 39, 40], [0.55, 255, 196, 37], [0.9, 31, 144, 255]];
  const t = Math.min(Math.max(score, stops[0][0]), stops[2][0]);
  const [a, b] = t < stops[1][0] ? [stops[0], stops[1]] : [stops[1], stops[2]];
  const share = (t - a[0]) / (b[0] - a[0]);
  return `rgb(${[1, 2, 3].map((k) => Math.round(a[k] + share * (b[k] - a[k]))).join(" ")})`;
}

// The landmarks of a face, in pixels of its photo.
function drawing(face) {
  const layout = data.layouts[face.layout];
  const group = shape("g");
  const {points, truth} = face;
  const at = (values, k) => `${values[2 * k]},${values[2 * k + 1]}`;
  if (points) for (const [indices, rgb] of layout.lines) {
    const line = indices.map((k) => at(points, k)).join(" ");
    group.append(shape("polyline", {points: line, stroke: rgb}));
  }
  if (truth) for (let k = 0; k < truth.length / 2; k++) {
    if (points) group.append(shape("line", {
      class: "shift", x1: truth[2 * k], y1: truth[2 * k + 1], x2: points[2 * k], y2: points[2 * k + 1]}));
    group.append(shape("circle", {class: "truth", cx: truth[2 * k], cy: truth[2 * k + 1]}));
  }
  if (points) for (let k = 0; k < points.length / 2; k++) {
    const fill = face.scores ? colour(face.scores[k]) : "#ffc425";
    group.append(shape("circle", {class: "point", cx: points[2 * k], cy: points[2 * k + 1], fill}));
  }
  return group;
}
function picture(src, [x, y, width, height]) {
  return shape("image", {href: src, x, y, width, height, preserveAspectRatio: "none"});
}
function viewOf(face) { // a square around the crop
  const [x, y, width, height] = face.view;
  return [x, y, width, height];
}

// How many letters all photos' names share: their folder, which the cards leave out.
const shared = (() => {
  const names = data.photos.map(({name}) => name.slice(0, name.lastIndexOf("/") + 1));
  let prefix = names[0] ?? "";
  for (const name of names) while (!name.startsWith(prefix)) prefix = prefix.slice(0, prefix.lastIndexOf("/", prefix.length - 2) + 1);
  return prefix.length;
})();

// The cards.
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) (entry.isIntersecting ? fill : empty)(entry.target);
}, {rootMargin: "900px 0px"});
function card(face) {
  const svg = shape("svg", {viewBox: viewOf(face).join(" "), "aria-hidden": "true"});
  const button = element("button", {type: "button", "aria-label": describe(face)}, svg);
  const [first, size, ...rest] = facts(face);
  const {name} = photoOf(face);
  const text = element(
    "div", {}, element("span", {}, element("strong", {}, first), ` · ${size}`), element("span", {}, rest.join(" · ")),
    element("span", {class: "file", title: name}, element("bdi", {}, `${name.slice(shared)} · ${face.face}`)));
  const made = element("div", {class: "card", role: "listitem"}, button, text);
  made.face = svg.face = face;
  observer.observe(made);
  return made;
}
function fill(made) {
  const svg = made.querySelector("svg");
  if (svg.childNodes.length) return;
  svg.style.setProperty("--r", `${made.face.view[2] * 0.0065}px`);
  if (made.face.src) svg.append(picture(made.face.src, made.face.crop));
  svg.append(drawing(made.face));
}
const empty = (made) => made.querySelector("svg").replaceChildren();

// Filters and order.
const MEASURE = scored ? "score" : "nme";
const last = (value, other) => (value === null ? other : value);
const ORDERS = scored ? {
  "least sure first": (a, b) => a.score - b.score,
  "surest first": (a, b) => b.score - a.score,
  "largest expected error first": (a, b) => last(b.error, -1) - last(a.error, -1),
} : {
  "worst first": (a, b) => last(b.nme, Infinity) - last(a.nme, Infinity) || 0,
  "best first": (a, b) => last(a.nme, Infinity) - last(b.nme, Infinity) || 0,
};
Object.assign(ORDERS, {
  "smallest first": (a, b) => a.size - b.size,
  "largest first": (a, b) => b.size - a.size,
  "by file": (a, b) => a.photo - b.photo || a.face - b.face,
});
for (const name of Object.keys(ORDERS)) $("order").append(element("option", {}, name));
let shown = [];
let built = 0;
function bound(id, other) {
  const text = $(id).value.trim();
  return text === "" || Number.isNaN(Number(text)) ? other : Number(text);
}
function apply() {
  const name = $("name").value.trim().toLocaleLowerCase();
  const [low, high] = [bound("measure-min", -Infinity), bound("measure-max", Infinity)];
  const [small, large] = [bound("size-min", -Infinity), bound("size-max", Infinity)];
  shown = data.faces.filter((face) => {
    const value = last(face[MEASURE], Infinity);
    return value >= low && value <= high && face.size >= small && face.size <= large
      && photoOf(face).name.toLocaleLowerCase().includes(name);
  }).sort(ORDERS[$("order").value]);
  observer.disconnect();
  list.replaceChildren();
  built = 0;
  build();
  $("count").textContent = !data.faces.length ? "No faces" : shown.length === data.faces.length
    ? `${shown.length === 1 ? "" : "All "}${plural(shown.length, "face")} shown`
    : `${shown.length.toLocaleString("en")} of ${plural(data.faces.length, "face")} shown`;
}
function build(until = built + AT_ONCE) {
  const part = shown.slice(built, until);
  list.append(...part.map(card));
  built += part.length;
}
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting) && built < shown.length) {
    build();
    const more = $("more"); // seen again if it is still in view
    more.remove();
    list.after(more);
  }
}, {rootMargin: "1500px 0px"}).observe($("more"));
let waiting;
$("filters").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
$("filters").addEventListener("reset", () => setTimeout(() => { toggles(); apply(); }));
$("filters").addEventListener("submit", (event) => event.preventDefault());
function toggles() {
  for (const what of ["points", "lines", "truth"]) {
    document.body.classList.toggle(`no-${what}`, !$(`show-${what}`).checked);
  }
}
$("filters").addEventListener("change", toggles);

// The whole photo.
const dialog = $("photo");
let current = null; // {face, svg, view: [x, y, width, height], whole, chosen}
function open(face) {
  const photo = photoOf(face);
  const whole = [-0.5, -0.5, photo.width, photo.height];
  const svg = shape("svg", {role: "img", "aria-label": describe(face), tabindex: "0"});
  const src = photo.src;
  $("photo-note").hidden = Boolean(src);
  $("photo-note").textContent = "The whole photo is not part of this page; its crop is shown.";
  if (src) {
    const image = picture(src, whole);
    image.addEventListener("error", () => {
      $("photo-note").hidden = false;
      $("photo-note").textContent = `The browser cannot show ${photo.name}: it has moved, or its format is not known.`;
      if (face.src) image.replaceWith(picture(face.src, face.crop));
    });
    svg.append(image);
  } else if (face.src) svg.append(picture(face.src, face.crop));
  for (const other of data.faces) if (other.photo === face.photo && other !== face) {
    const group = drawing(other);
    group.classList.add("other");
    svg.append(group);
  }
  const [x0, y0, x1, y1] = face.box;
  svg.append(shape("rect", {class: "frame", x: x0, y: y0, width: x1 - x0, height: y1 - y0}), drawing(face));
  svg.face = face;
  $("stage").replaceChildren(svg);
  $("photo-name").textContent = `${photo.name}, face ${face.face}`;
  $("photo-facts").textContent = facts(face).join(" · ");
  current = {face, svg, whole, view: whole, chosen: -1};
  if ($("table").open) table();
  if (!dialog.open) dialog.showModal(); // from here on the stage has a size
  show(src ? whole : viewOf(face));
  svg.focus({preventScroll: true});
}
function show(view) {
  current.view = view;
  current.svg.setAttribute("viewBox", view.join(" "));
  const stage = $("stage").getBoundingClientRect();
  const scale = Math.min(stage.width / view[2], stage.height / view[3]) || 1; // pixels of the screen per pixel
  const side = current.face.view[2] * scale;
  const radius = Math.min(5, Math.max(1.2, side * 0.0065)) / scale;
  current.svg.style.setProperty("--r", `${radius}px`);
}
function zoom(factor, centre) {
  const [x, y, width, height] = current.view;
  const [cx, cy] = centre ?? [x + width / 2, y + height / 2];
  const least = current.face.view[2] / 40, most = 4 * Math.max(...current.whole.slice(2));
  if (width / factor < least || width / factor > most) return;
  show([cx - (cx - x) / factor, cy - (cy - y) / factor, width / factor, height / factor]);
}
const isWhole = () => current.view === current.whole;
const fit = () => show(isWhole() ? viewOf(current.face) : current.whole);
function step(by) {
  const next = shown.indexOf(current.face) + by;
  if (next >= 0 && next < shown.length) open(shown[next]);
}
function place(svg, event) { // of the pointer, in pixels of the photo
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [point.x, point.y];
}
dialog.addEventListener("close", () => {
  const face = current.face;
  const index = shown.indexOf(face);
  current = null;
  tip();
  if (index >= built) build(index + 1);
  if (index >= 0) list.children[index].querySelector("button").focus();
});
for (const [id, act] of Object.entries({
  previous: () => step(-1), next: () => step(1), smaller: () => zoom(1 / 1.5), larger: () => zoom(1.5), fit,
  close: () => dialog.close(),
})) $(id).addEventListener("click", act);
$("stage").addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), place(current.svg, event));
}, {passive: false});
const pointers = new Map();
$("stage").addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  $("stage").setPointerCapture(event.pointerId);
});
for (const name of ["pointerup", "pointercancel"]) {
  $("stage").addEventListener(name, (event) => pointers.delete(event.pointerId));
}
$("stage").addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before || !current) return;
  const spread = () => {
    const [[ax, ay], [bx, by]] = [...pointers.values()];
    return Math.hypot(ax - bx, ay - by);
  };
  const old = pointers.size === 2 ? spread() : 0;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (old) zoom(spread() / old, place(current.svg, event));
  else {
    const scale = current.svg.getScreenCTM().a;
    const [x, y, width, height] = current.view;
    show([x - (event.clientX - before[0]) / scale, y - (event.clientY - before[1]) / scale, width, height]);
  }
});

// A table of the landmarks, for those who cannot point at them.
function table() {
  const {face} = current;
  const names = data.layouts[face.layout].names;
  const heads = ["", "landmark", "x", "y"];
  if (face.scores) heads.push("score");
  if (face.errors) heads.push(scored ? "expected error, px" : "error, px");
  const rows = names.map((name, k) => {
    const cells = [k, name, ...(face.points ? [face.points[2 * k], face.points[2 * k + 1]] : ["", ""])];
    if (face.scores) cells.push(number(face.scores[k], 2));
    if (face.errors) cells.push(number(face.errors[k], 1));
    return element("tr", {}, ...cells.map((cell) => element("td", {}, String(cell))));
  });
  const head = element("tr", {}, ...heads.map((text) => element("th", {scope: "col"}, text)));
  $("table").querySelector("div").replaceChildren(element("table", {}, head, ...rows));
}
$("table").addEventListener("toggle", () => { if ($("table").open && current) table(); });

// Names of landmarks.
function tip(face, k, x, y) {
  const box = $("tip");
  box.hidden = face === undefined;
  if (box.hidden) return;
  const parts = [`${k} ${data.layouts[face.layout].names[k]}`];
  if (face.scores) parts.push(`score ${number(face.scores[k], 2)}`);
  if (face.errors && face.errors[k] !== null) {
    parts.push(`${scored ? "expected error" : "error"} ${number(face.errors[k], 1)} px`);
  }
  box.textContent = parts.join(" · ");
  (dialog.open ? dialog : document.body).append(box); // above the dialog
  const {width, height} = box.getBoundingClientRect();
  box.style.left = `${Math.min(Math.max(x + 12, 4), innerWidth - width - 4)}px`;
  box.style.top = `${y + 18 + height > innerHeight ? y - height - 8 : y + 18}px`;
}
function point(event) {
  const svg = event.target.closest?.("svg");
  const face = svg?.face;
  const points = face?.points ?? face?.truth;
  if (!points) return tip();
  const matrix = svg.getScreenCTM();
  let best = HIT, nearest = -1;
  for (let k = 0; k < points.length / 2; k++) {
    const x = matrix.a * points[2 * k] + matrix.e, y = matrix.d * points[2 * k + 1] + matrix.f;
    const distance = Math.hypot(x - event.clientX, y - event.clientY);
    if (distance < best) [best, nearest] = [distance, k];
  }
  if (nearest < 0) return tip();
  tip(face, nearest, event.clientX, event.clientY);
}
document.addEventListener("pointermove", point);
document.addEventListener("pointerdown", point);
function choose(by) {
  const points = current.face.points ?? current.face.truth;
  const count = points.length / 2;
  const k = current.chosen < 0 && by < 0 ? count - 1 : (current.chosen + by + count) % count;
  current.chosen = k;
  const kind = current.face.points ? "circle.point" : "circle.truth";
  const dots = current.svg.lastChild.querySelectorAll(kind);
  for (const dot of dots) dot.classList.toggle("chosen", dot === dots[k]);
  const matrix = current.svg.getScreenCTM();
  tip(current.face, k, matrix.a * points[2 * k] + matrix.e, matrix.d * points[2 * k + 1] + matrix.f);
}

// Keys.
function flip(what) {
  const box = $(`show-${what}`);
  if (box.closest("label").hidden) return;
  box.checked = !box.checked;
  toggles();
}
const ANYWHERE = {p: () => flip("points"), l: () => flip("lines"), t: () => flip("truth")};
const IN_PHOTO = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5),
  0: () => show(current.whole), f: fit, ",": () => choose(-1), ".": () => choose(1),
};
const IN_LIST = {
  "/": () => $("name").focus(), "?": () => $("keys").showModal(),
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => move(-columns()), ArrowDown: () => move(columns()),
  Home: () => move(-Infinity), End: () => move(Infinity),
};
const columns = () => getComputedStyle(list).gridTemplateColumns.split(" ").length;
function move(by) {
  const now = [...list.children].indexOf(document.activeElement.closest?.(".card"));
  const next = now < 0 && Number.isFinite(by) ? 0 : Math.min(Math.max(now + by, 0), shown.length - 1);
  if (next >= built) build(next + 1);
  list.children[next]?.querySelector("button").focus();
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox") return;
  const act = ANYWHERE[event.key] ?? (dialog.open ? IN_PHOTO : IN_LIST)[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
list.addEventListener("click", (event) => {
  const made = event.target.closest(".card");
  if (made && event.target.closest("button")) open(made.face);
});
$("help").addEventListener("click", () => $("keys").showModal());
$("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

// The page.
$("summary").textContent = data.summary;
$("measure-label").textContent = scored ? "Score" : "NME, %";
$("truth-label").hidden = scored;
if (data.errors.length) {
  $("errors").hidden = false;
  $("errors").querySelector("summary").textContent = `${plural(data.errors.length, "photo")} with an error`;
  $("errors").querySelector("ul").append(...data.errors.map(
    ([name, error]) => element("li", {}, element("strong", {}, name), `: ${error}`)));
}
toggles();
apply();
root.dataset.ready = "true";
})();
