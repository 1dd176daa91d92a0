// Images of 28×28 pixels: shown with what a model makes of them, and one to draw in.
import { element } from "./page.js";

const SIDE = 28;

function paint(canvas, pixels) {
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  pixels.forEach((pixel, i) => image.data.set([pixel, pixel, pixel, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

/** A held-out image, the prediction below it, and the truth in brackets where it is another. */
export function digit({ pixels, prediction, truth }) {
  const isRight = prediction === truth;
  const words = isRight ? prediction : `${prediction} (${truth})`;
  const canvas = element("canvas", { role: "img", "aria-label": `an image of ${truth}` });
  paint(canvas, pixels);
  return element("figure", { class: isRight ? "right" : "wrong" }, canvas, element("figcaption", {}, words || "none"));
}

/** A box to draw a digit in, by hand or by the arrow keys. */
export class Pad {
  /** `look` is told the pixels when they have changed. */
  constructor(look) {
    this.pixels = new Uint8Array(SIDE * SIDE);
    this.ask = look;
    this.pen = [14, 6];
    this.canvas = element("canvas", {
      class: "live-pad",
      tabindex: 0,
      role: "application",
      "aria-label": "A box to draw a digit in: arrow keys move the pen, with the shift key they draw",
      onpointerdown: (event) => this.touch(event),
      onpointermove: (event) => event.buttons && this.touch(event),
      onpointerup: () => this.look(),
      onkeydown: (event) => this.key(event),
    });
    this.says = element("output", { class: "live-figures" }, "Draw a digit here.");
    const clear = element("button", { type: "button", onclick: () => this.clear() }, "Clear");
    this.whole = element("div", { class: "live-pad-row" }, this.canvas, element("div", {}, this.says, clear));
    this.show();
  }

  show() {
    paint(this.canvas, this.pixels);
  }

  clear() {
    this.pixels.fill(0);
    this.show();
    this.tell(undefined);
  }

  /** Ink about a place, as wide as the bundled digits' strokes. */
  ink([x, y]) {
    for (let row = 0; row < SIDE; row++) {
      for (let column = 0; column < SIDE; column++) {
        const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y);
        const ink = Math.round(255 * Math.min(Math.max(2.1 - distance, 0), 1));
        const at = row * SIDE + column;
        this.pixels[at] = Math.max(this.pixels[at], ink);
      }
    }
    this.show();
  }

  touch(event) {
    const box = this.canvas.getBoundingClientRect();
    this.pen = [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
    this.ink(this.pen);
    event.preventDefault();
  }

  key(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    this.pen = this.pen.map((place, i) => Math.min(Math.max(place + by[i], 0), SIDE));
    if (event.shiftKey) {
      this.ink(this.pen);
      this.look();
    }
  }

  look() {
    if (this.pixels.some((pixel) => pixel > 0)) this.ask(this.pixels.slice());
  }

  tell(prediction) {
    this.says.textContent = prediction === undefined ? "Draw a digit here." : `The model says: ${prediction || "none"}`;
  }
}
