// Boxes on a picture, drawn, moved and sized by mouse, touch or keyboard; in whole pixels of the picture as it is shown upright.

const SMALLEST = 2; // pixels
const SLIP = 5; // pixels of the screen that a press may move and still be no drag
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class BoxEditor {
  // `changed` is called after each change, `say` with what a screen reader is to speak.
  constructor(stage, { changed, say }) {
    this.stage = stage;
    this.changed = changed;
    this.say = say;
    this.boxes = [];
    this.colours = [];
    this.size = { width: 1, height: 1 };
    this.chosen = null;
    this.drag = null;
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.pull(event));
    stage.addEventListener("pointerup", (event) => this.release(event));
    stage.addEventListener("pointercancel", () => this.give_up());
    // Without this a drag that ends in motion is a fling to Chromium, which takes the next tap for its end and makes no click of it.
    stage.addEventListener("touchmove", (event) => this.drag && event.preventDefault(), { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
    stage.addEventListener("focusin", (event) => this.choose(this.at(event.target)));
  }

  // The boxes as [left, top, right, bottom].
  get values() {
    return this.boxes.map((box) => [...box.edges]);
  }

  // Show these boxes on a picture of that size.
  show(size, boxes) {
    this.give_up();
    this.boxes.forEach((box) => box.element.remove());
    this.boxes = [];
    this.size = size;
    this.chosen = null;
    this.stage.style.setProperty("aspect-ratio", `${size.width} / ${size.height}`);
    this.stage.style.setProperty("max-width", `calc(64vh * ${size.width / size.height})`);
    boxes.forEach((edges) => this.add(edges));
  }

  // Whether the next drag draws a box with any pointer: without it a finger scrolls the page.
  set drawing(on) {
    this.stage.classList.toggle("drawing", on);
  }

  get drawing() {
    return this.stage.classList.contains("drawing");
  }

  // A new box in the middle of the picture, or around a point, with the focus.
  add_at(x = this.size.width / 2, y = this.size.height / 2) {
    const width = Math.max(SMALLEST, Math.round(this.size.width / 4));
    const height = Math.max(SMALLEST, Math.round(this.size.height / 4));
    const left = Math.round(clamp(x - width / 2, 0, this.size.width - width));
    const top = Math.round(clamp(y - height / 2, 0, this.size.height - height));
    const box = this.add([left, top, left + width, top + height]);
    box.element.focus();
    this.changed();
    this.say(`${this.name_of(box)} added`);
  }

  remove_all() {
    this.show(this.size, []);
    this.changed();
  }

  // -- one box --

  add(edges) {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "box";
    const number = document.createElement("span");
    number.className = "number";
    element.append(number);
    for (const corner of ["nw", "ne", "sw", "se"]) {
      const handle = document.createElement("span");
      handle.className = `corner ${corner}`;
      handle.dataset.corner = corner;
      element.append(handle);
    }
    const box = { edges, element };
    this.boxes.push(box);
    this.stage.append(element);
    this.place(box);
    this.renumber();
    return box;
  }

  remove(box) {
    const place = this.boxes.indexOf(box);
    this.boxes.splice(place, 1);
    box.element.remove();
    if (this.chosen === box) this.chosen = null;
    this.renumber();
    const near = this.boxes[Math.min(place, this.boxes.length - 1)];
    (near ? near.element : document.getElementById("add-box")).focus();
    this.changed();
    this.say(`Box removed, ${this.boxes.length} left`);
  }

  place(box) {
    const [left, top, right, bottom] = box.edges;
    const style = box.element.style;
    style.setProperty("left", `${(100 * left) / this.size.width}%`);
    style.setProperty("top", `${(100 * top) / this.size.height}%`);
    style.setProperty("width", `${(100 * (right - left)) / this.size.width}%`);
    style.setProperty("height", `${(100 * (bottom - top)) / this.size.height}%`);
    box.element.setAttribute("aria-label", `${this.name_of(box)}: ${box.edges.join(", ")}`);
  }

  renumber() {
    this.boxes.forEach((box, place) => {
      const [colour, ink] = this.colours[place % this.colours.length] || ["#E69F00", "#000"];
      box.element.style.setProperty("--c", colour);
      box.element.style.setProperty("--on-c", ink);
      box.element.firstChild.textContent = place + 1;
      this.place(box);
    });
  }

  name_of(box) {
    return `Box ${this.boxes.indexOf(box) + 1}`;
  }

  at(target) {
    const element = target.closest?.(".box");
    return this.boxes.find((box) => box.element === element) || null;
  }

  choose(box) {
    this.chosen = box;
    this.boxes.forEach((one) => one.element.classList.toggle("chosen", one === box));
  }

  // -- a pointer --

  point(event) {
    const frame = this.stage.getBoundingClientRect();
    return [
      clamp(((event.clientX - frame.left) * this.size.width) / frame.width, 0, this.size.width),
      clamp(((event.clientY - frame.top) * this.size.height) / frame.height, 0, this.size.height),
    ];
  }

  press(event) {
    if (!event.isPrimary || event.button !== 0 || this.drag) return;
    const box = this.at(event.target);
    if (!box && event.pointerType === "touch" && !this.drawing) return;
    event.preventDefault();
    this.stage.setPointerCapture(event.pointerId);
    const start = this.point(event);
    this.drag = {
      box, start, corner: event.target.dataset?.corner, from: box ? [...box.edges] : null,
      screen: [event.clientX, event.clientY], moved: false,
    };
    if (box) box.element.focus();
  }

  pull(event) {
    const drag = this.drag;
    if (!drag || !event.isPrimary) return;
    const [x0, y0] = drag.screen;
    drag.moved ||= Math.hypot(event.clientX - x0, event.clientY - y0) > SLIP;
    if (!drag.moved) return;
    const [x, y] = this.point(event);
    if (!drag.box) {
      drag.box = this.add([0, 0, SMALLEST, SMALLEST]);
      this.choose(drag.box);
    }
    drag.box.edges = drag.corner ? this.sized(drag, x, y) : drag.from ? this.moved(drag, x, y) : this.spanned(drag.start, [x, y]);
    this.place(drag.box);
  }

  release(event) {
    const drag = this.drag;
    if (!drag || !event.isPrimary) return;
    this.drag = null;
    if (!drag.box && this.drawing) {
      this.drawing = false;
      this.add_at(...drag.start);
      return;
    }
    if (!drag.box || !drag.moved) return;
    this.drawing = false;
    drag.box.element.focus();
    this.changed();
    this.say(drag.box.element.getAttribute("aria-label"));
  }

  // Leave a drag as if it had not begun.
  give_up() {
    const drag = this.drag;
    this.drag = null;
    if (!drag?.box) return;
    if (drag.from) {
      drag.box.edges = drag.from;
      this.place(drag.box);
    } else {
      this.boxes.splice(this.boxes.indexOf(drag.box), 1);
      drag.box.element.remove();
    }
  }

  spanned([x0, y0], [x1, y1]) {
    const [left, right] = this.stretch(Math.min(x0, x1), Math.max(x0, x1), this.size.width);
    const [top, bottom] = this.stretch(Math.min(y0, y1), Math.max(y0, y1), this.size.height);
    return [left, top, right, bottom];
  }

  // Two edges in whole pixels, at least the smallest box apart.
  stretch(low, high, most) {
    const start = clamp(Math.round(low), 0, most - Math.min(SMALLEST, most));
    return [start, clamp(Math.round(high), start + Math.min(SMALLEST, most), most)];
  }

  sized(drag, x, y) {
    const [left, top, right, bottom] = drag.from;
    const still = [drag.corner.includes("w") ? right : left, drag.corner.includes("n") ? bottom : top];
    return this.spanned(still, [x, y]);
  }

  moved(drag, x, y) {
    return this.shifted(drag.from, x - drag.start[0], y - drag.start[1]);
  }

  shifted([left, top, right, bottom], dx, dy) {
    const x = Math.round(clamp(dx, -left, this.size.width - right));
    const y = Math.round(clamp(dy, -top, this.size.height - bottom));
    return [left + x, top + y, right + x, bottom + y];
  }

  // -- the keyboard --

  key(event) {
    const box = this.at(event.target);
    if (!box) return;
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.remove(box);
      return;
    }
    const arrow = ARROWS[event.key];
    if (!arrow || event.altKey) return;
    event.preventDefault();
    const fine = event.ctrlKey || event.metaKey;
    const dx = arrow[0] * (fine ? 1 : Math.max(1, Math.round(this.size.width / 50)));
    const dy = arrow[1] * (fine ? 1 : Math.max(1, Math.round(this.size.height / 50)));
    const [left, top, right, bottom] = box.edges;
    box.edges = event.shiftKey
      ? [left, top, clamp(right + dx, left + SMALLEST, this.size.width), clamp(bottom + dy, top + SMALLEST, this.size.height)]
      : this.shifted(box.edges, dx, dy);
    this.place(box);
    this.changed();
    this.say(box.element.getAttribute("aria-label"));
  }
}
