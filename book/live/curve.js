// <loss-curve name="huber">: a loss and its derivative over the prediction, and all that can be turned.
// With `mistake`, the lines of a mistake and of what was meant, which the first control tells apart.
import { Live, element, field, short } from "./page.js";
import { Plot, rangeOf } from "./plot.js";

const PLACES = 241;

export class LossCurve extends Live {
  fill(bridge) {
    this.bridge = bridge;
    this.name = this.getAttribute("name");
    const { title, x, range, controls } = JSON.parse(bridge.describe(this.name));
    Object.assign(this, { x, range, controls });
    this.places = Float64Array.from({ length: PLACES }, (_, i) => range[0] + ((range[1] - range[0]) * i) / (PLACES - 1));
    this.isMistake = this.hasAttribute("mistake");

    this.plots = [new Plot(`${title}: the loss`, 210), new Plot(`${title}: its derivative`, 150)];
    for (const plot of this.plots) this.makeDraggable(plot);
    this.figures = element("output", { class: "live-figures" });
    const prediction = { name: x, range, default: range[0] + (range[1] - range[0]) * 0.75, choices: [] };
    const turned = this.isMistake ? controls.slice(1) : controls;
    this.fields = [prediction, ...turned].map((control) => this.control(control));
    const reset = element("button", { type: "button", onclick: () => this.reset() }, "Reset");
    const legend = element("div", { class: "live-legend" }, ...this.labels().map(([look, text]) => {
      return element("span", {}, element("span", { class: `swatch ${look}`, "aria-hidden": "true" }), text);
    }));
    const parts = [legend, this.plots[0].svg, this.plots[1].svg, this.figures];
    const fields = element("div", { class: "live-fields" }, ...this.fields.map(({ whole }) => whole), reset);
    const [what, answer] = (this.isMistake && bridge.refusal(this.name)) || [];
    const says = what ? [element("p", { class: "live-note" }, `${what} is refused: `, element("code", {}, answer))] : [];
    this.replaceChildren(element("figure", { class: "live" }, element("figcaption", {}, title), ...parts, fields, ...says));
    this.reset();
  }

  /** The lines' looks and names. */
  labels() {
    const fixed = this.controls.filter(({ is_on_axis }) => is_on_axis).map(({ name }) => ["target", name]);
    if (!this.isMistake) return [["loss", "loss"], ["slope", "derivative"], ...fixed];
    return this.controls[0].choices.map(([, word], i) => [`line-${i}`, `${this.controls[0].name}: ${word}`]);
  }

  /** A slider and a number, or a choice, of one value. */
  control(control) {
    const { name, range, choices } = control;
    if (choices.length) {
      const options = choices.map(([value, word]) => element("option", { value }, word));
      const input = element("select", { onchange: () => this.set(made, Number(input.value)) }, ...options);
      const made = { control, ...field(name, input), show: (value) => (input.value = value) };
      return made;
    }
    // Small steps, so that a slider moves as the hand does.
    const slider = element("input", { type: "range", min: range[0], max: range[1], step: "any", "aria-label": `${name}, slider` });
    slider.addEventListener("input", () => this.set(made, Number(slider.value)));
    // `any` has no step for a key.
    slider.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (steps === undefined) return;
      event.preventDefault();
      const next = made.value + (steps * (range[1] - range[0])) / 100;
      this.set(made, Math.min(Math.max(next, range[0]), range[1]));
    });
    const input = element("input", { type: "text", inputmode: "decimal", size: 7, autocomplete: "off" });
    input.addEventListener("input", () => this.typed(made, input.value));
    const made = {
      control,
      ...field(name, input, slider),
      show(value) {
        slider.value = value;
        if (document.activeElement !== input) input.value = short(value);
      },
    };
    return made;
  }

  typed(made, text) {
    const [least, most] = made.control.range;
    const value = text.trim() === "" ? NaN : Number(text);
    if (!(value >= least && value <= most)) {
      made.tell(`needs a number from ${short(least)} to ${short(most)}`);
      return;
    }
    this.set(made, value);
  }

  set(made, value) {
    const before = made.value;
    made.value = value;
    try {
      this.draw();
      made.tell("");
      made.show(value);
    } catch (error) {
      made.value = before;
      made.tell(error.message);
    }
  }

  reset() {
    // A field that is being typed in shows what was typed, but for this.
    for (const input of this.querySelectorAll("input[type=text]")) input.blur();
    for (const made of this.fields) {
      made.value = made.control.default;
      made.tell("");
      made.show(made.value);
    }
    this.draw();
  }

  draw() {
    const [prediction, ...values] = this.fields.map(({ value }) => value);
    const places = Float64Array.of(...this.places, prediction);
    const lines = this.isMistake ? this.controls[0].choices.map(([value]) => [value, ...values]) : [values];
    const found = lines.map((line) => {
      const both = this.bridge.curve(this.name, places, Float64Array.from(line));
      return [both.subarray(0, places.length), both.subarray(places.length)];
    });
    const ranges = [0, 1].map((part) => rangeOf(found.flatMap((parts) => [...parts[part].subarray(0, PLACES)])));
    if (!ranges[0] || !ranges[1]) throw new Error("nothing here is finite");
    const target = this.fields.find(({ control }) => control.is_on_axis);
    this.plots.forEach((plot, part) => {
      const look = (i) => (this.isMistake ? `line-${i}` : ["loss", "slope"][part]);
      const marks = found.map((parts, i) => ({ x: prediction, y: parts[part][PLACES], look: look(i) }));
      if (target) marks.unshift({ x: target.value, look: "target" });
      plot.draw({
        x: this.range,
        y: ranges[part],
        xLabel: part === 1 ? this.x : "",
        yLabel: ["loss", "derivative"][part],
        lines: found.map((parts, i) => ({ places: this.places, values: parts[part], look: look(i) })),
        marks,
      });
    });
    const figures = found.map(([value, slope], i) => {
      const name = this.isMistake ? `${this.controls[0].choices[i][1]}: ` : "";
      return `${name}loss ${short(value[PLACES])}, derivative ${short(slope[PLACES])}`;
    });
    this.figures.replaceChildren(`${this.x} = ${short(prediction)}: `, ...figures.flatMap((text) => [element("span", {}, text), " "]));
  }

  /** A finger on the picture takes the prediction along, or the target if that is nearer. */
  makeDraggable(plot) {
    const { svg } = plot;
    let taken;
    const move = (event) => this.set(taken, plot.at(event.clientX));
    svg.addEventListener("pointerdown", (event) => {
      const place = plot.at(event.clientX);
      const movable = this.fields.filter(({ control }, i) => i === 0 || control.is_on_axis);
      taken = movable.reduce((a, b) => (Math.abs(b.value - place) < Math.abs(a.value - place) ? b : a));
      svg.setPointerCapture(event.pointerId);
      move(event);
    });
    svg.addEventListener("pointermove", (event) => taken && move(event));
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (taken = undefined));
  }
}
