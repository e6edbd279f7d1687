/* The viewer: two pictures of one moment, a divider between them, zoom by whole pixels. */
(() => {
  "use strict";
  const { names, moments, width, height } = JSON.parse(document.getElementById("moments").textContent);
  if (!moments.length) return;
  const by = (id) => document.getElementById(id);
  const [stage, under, over, line, strip, momentText] =
    ["stage", "under", "over", "line", "strip", "moment-text"].map(by);
  const sides = { left: by("left"), right: by("right") };
  const state = { moment: 0, split: 0.5, zoom: 0, x: 0, y: 0 };

  names.forEach((name, k) => {
    for (const side of Object.values(sides)) side.add(new Option(name, k));
  });
  sides.left.value = 0;
  sides.right.value = names.length > 2 ? 2 : 1;

  moments.forEach((moment, k) => {
    const button = document.createElement("button");
    button.type = "button";
    const picture = new Image();
    picture.src = moment.pictures[1];
    picture.alt = "";
    const label = document.createElement("span");
    label.textContent = moment.label;
    button.append(picture, label);
    button.addEventListener("click", () => { state.moment = k; show(); });
    strip.append(button);
  });

  const limit = (value, low, high) => Math.min(Math.max(value, low), high);

  /* CSS pixels per picture pixel; `zoom` is in device pixels, 0 fits the width. */
  function step() {
    return state.zoom ? state.zoom / window.devicePixelRatio : stage.clientWidth / width;
  }

  function show() {
    const moment = moments[state.moment];
    under.src = moment.pictures[sides.left.value];
    over.src = moment.pictures[sides.right.value];
    [...strip.children].forEach((b, k) => b.setAttribute("aria-pressed", k === state.moment));
    for (const b of document.querySelectorAll("[data-zoom]"))
      b.setAttribute("aria-pressed", Number(b.dataset.zoom) === state.zoom);
    momentText.textContent = moment.text;
    place();
  }

  function place() {
    const size = step(), w = width * size, h = height * size;
    const seen = stage.clientWidth, tall = stage.clientHeight;
    state.x = limit(state.x, Math.min(0, seen - w), 0);
    state.y = limit(state.y, Math.min(0, tall - h), 0);
    const at = state.split * seen;
    for (const picture of [under, over]) {
      picture.style.width = `${w}px`;
      picture.style.height = `${h}px`;
      picture.style.transform = `translate(${state.x}px, ${state.y}px)`;
      picture.classList.toggle("sharp", state.zoom > 0);
    }
    over.style.clipPath = `inset(0 0 0 ${limit(at - state.x, 0, w)}px)`;
    line.style.left = `${at}px`;
  }

  function zoom(to) {
    const before = step(), old = state.zoom;
    state.zoom = to;
    const after = step(), middle = [stage.clientWidth / 2, stage.clientHeight / 2];
    if (old !== to) {
      state.x = middle[0] - ((middle[0] - state.x) * after) / before;
      state.y = middle[1] - ((middle[1] - state.y) * after) / before;
    }
    show();
  }

  for (const b of document.querySelectorAll("[data-zoom]"))
    b.addEventListener("click", () => zoom(Number(b.dataset.zoom)));
  for (const side of Object.values(sides)) side.addEventListener("change", show);

  let grip = null;
  stage.addEventListener("pointerdown", (event) => {
    const at = event.clientX - stage.getBoundingClientRect().left;
    const near = Math.abs(at - state.split * stage.clientWidth) < 24;
    grip = { line: near || !state.zoom, x: event.clientX, y: event.clientY };
    stage.setPointerCapture(event.pointerId);
    move(event);
  });
  stage.addEventListener("pointermove", (event) => grip && move(event));
  for (const kind of ["pointerup", "pointercancel"])
    stage.addEventListener(kind, () => { grip = null; });

  function move(event) {
    if (grip.line) {
      const at = event.clientX - stage.getBoundingClientRect().left;
      state.split = limit(at / stage.clientWidth, 0, 1);
    } else {
      state.x += event.clientX - grip.x;
      state.y += event.clientY - grip.y;
      grip.x = event.clientX;
      grip.y = event.clientY;
    }
    place();
  }

  const zooms = [0, 1, 2, 4, 8];
  const next = (by) => zooms[limit(zooms.indexOf(state.zoom) + by, 0, 4)];
  const turn = (by) => { state.moment = (state.moment + by + moments.length) % moments.length; };
  const keys = {
    ArrowLeft: () => { state.split = limit(state.split - 0.02, 0, 1); },
    ArrowRight: () => { state.split = limit(state.split + 0.02, 0, 1); },
    "+": () => zoom(next(1)), "=": () => zoom(next(1)), "-": () => zoom(next(-1)),
    ",": () => turn(-1), ".": () => turn(1),
    " ": () => {
      [sides.left.value, sides.right.value] = [sides.right.value, sides.left.value];
    },
  };
  document.addEventListener("keydown", (event) => {
    const free = !(event.target instanceof HTMLSelectElement || event.target instanceof HTMLButtonElement);
    if (event.ctrlKey || event.metaKey || event.altKey || !free) return;
    const number = Number(event.key);
    if (number >= 1 && number <= names.length) sides.right.value = number - 1;
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
    show();
  });
  window.addEventListener("resize", place);
  by("viewer").hidden = false;
  stage.style.aspectRatio = `${width} / ${height}`;
  show();
})();
