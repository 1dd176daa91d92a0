// Lines in a coordinate system, as SVG at the size that the page has for it.
import { short } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
// At the right there is room for half of the last number.
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 22, 22, 34];

/** Gives a shape its attributes. */
export function set(shape, attributes) {
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
}

/** A shape among others. */
export function draw(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  set(made, attributes);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

/** Round numbers within a range, about so many. */
function ticks([from, to], about) {
  const rough = (to - from) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const found = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) found.push(i * step);
  return found;
}

/** The least range that holds all these numbers, with some air, or nothing where none is finite. */
export function rangeOf(numbers) {
  let [least, most] = [Infinity, -Infinity];
  for (const number of numbers) {
    if (!Number.isFinite(number)) continue;
    least = Math.min(least, number);
    most = Math.max(most, number);
  }
  if (!Number.isFinite(most - least)) return undefined;
  // What differs by less is the same, but for rounding.
  const isFlat = most - least < 2e-3 * Math.max(Math.abs(least), Math.abs(most));
  const air = isFlat || most === least ? Math.max(Math.abs(most), 1) * 0.5 : (most - least) * 0.06;
  return [least - air, most + air];
}

export class Plot {
  /** `label` says what the picture shows to those who don't see it. */
  constructor(label, height) {
    this.svg = document.createElementNS(SVG, "svg");
    set(this.svg, { role: "img", "aria-label": label, class: "live-plot" });
    // What is drawn anew each time, and points that stay, so that they can be held.
    [this.under, this.over] = ["g", "g"].map((name) => draw(this.svg, name, {}));
    this.height = height;
    this.svg.style.height = `${height}px`;
    new ResizeObserver(() => this.last && this.svg.clientWidth !== this.width && this.draw(this.last)).observe(this.svg);
  }

  x(value) {
    const [from, to] = this.last.x;
    return LEFT + ((value - from) / (to - from)) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    const [from, to] = this.last.y;
    return this.height - BOTTOM - ((value - from) / (to - from)) * (this.height - TOP - BOTTOM);
  }

  /** What on the axis is at a place of the screen. */
  at(clientX) {
    const [from, to] = this.last.x;
    const box = this.svg.getBoundingClientRect();
    const share = (clientX - box.left - LEFT) / (this.width - LEFT - RIGHT);
    return from + Math.min(Math.max(share, 0), 1) * (to - from);
  }

  /**
   * `x`, `y`: the ranges; `xLabel`, `yLabel`; `lines`: `{ places, values, look }`; `marks`: `{ x, y, look }`, a vertical
   * where `y` is not given; `dots`: the same, small, and the same elements from one picture to the next.
   */
  draw(picture) {
    this.last = picture;
    this.width = this.svg.clientWidth || 600;
    this.under.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const [left, right, bottom] = [LEFT, this.width - RIGHT, this.height - BOTTOM];
    for (const tick of ticks(picture.x, this.width / 90)) {
      draw(this.under, "line", { class: "grid", x1: this.x(tick), x2: this.x(tick), y1: TOP, y2: bottom });
      draw(this.under, "text", { class: "tick", x: this.x(tick), y: bottom + 15, "text-anchor": "middle" }, short(tick));
    }
    for (const tick of ticks(picture.y, this.height / 50)) {
      draw(this.under, "line", { class: "grid", x1: left, x2: right, y1: this.y(tick), y2: this.y(tick) });
      draw(this.under, "text", { class: "tick", x: left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    draw(this.under, "text", { class: "axis", x: left, y: 14 }, picture.yLabel);
    draw(this.under, "text", { class: "axis", x: right, y: this.height - 4, "text-anchor": "end" }, picture.xLabel);
    const inside = (value) => Math.min(Math.max(value, -1e4), 1e4);
    for (const { places, values, look } of picture.lines) {
      let path = "";
      let isDown = false;
      for (let i = 0; i < places.length; i++) {
        if (Number.isFinite(values[i])) {
          path += `${isDown ? "L" : "M"}${this.x(places[i]).toFixed(1)} ${inside(this.y(values[i])).toFixed(1)}`;
        }
        isDown = Number.isFinite(values[i]);
      }
      draw(this.under, "path", { class: `line ${look}`, d: path });
    }
    const dots = picture.dots ?? [];
    while (this.over.childElementCount > dots.length) this.over.lastChild.remove();
    dots.forEach(({ x, y, look }, i) => {
      const dot = this.over.children[i] ?? draw(this.over, "circle", { r: 4.5 });
      set(dot, { class: `dot ${look}`, cx: this.x(x), cy: this.y(y) });
    });
    for (const { x, y, look } of picture.marks ?? []) {
      draw(this.under, "line", { class: `mark ${look}`, x1: this.x(x), x2: this.x(x), y1: TOP, y2: bottom });
      if (Number.isFinite(y)) draw(this.under, "circle", { class: `mark ${look}`, cx: this.x(x), cy: this.y(y), r: 6 });
      else draw(this.under, "path", { class: `mark ${look}`, d: `M${this.x(x)} ${bottom}l-6 -9h12z` });
    }
  }
}
