// <one-step>: forward, loss, backward and step of a model with one weight, one press at a time.
import { Live, element, field, short } from "./page.js";
import { Plot, rangeOf } from "./plot.js";

const [INPUT, TARGET] = [2, 3];
const WEIGHTS = Float64Array.from({ length: 121 }, (_, i) => -1 + i / 30);

export class OneStep extends Live {
  fill(bridge) {
    this.bridge = bridge;
    this.plot = new Plot("The loss over the weight, and where the weight is", 200);
    this.told = element("ol", { class: "live-stages", "aria-live": "polite" });
    const next = element("button", { type: "button", onclick: () => this.next() }, "Next");
    const again = element("button", { type: "button", onclick: () => this.again() }, "Start again");
    const rates = [0.02, 0.1, 0.25, 0.3].map((lr) => element("option", { value: lr, selected: lr === 0.1 }, String(lr)));
    this.rate = element("select", { onchange: () => this.again() }, ...rates);
    const caption = `prediction = weight · input, with an input of ${INPUT}, a target of ${TARGET} and the squared error`;
    this.replaceChildren(
      element("figure", { class: "live" }, element("figcaption", {}, caption), this.plot.svg,
        element("div", { class: "live-fields" }, field("learning rate", this.rate).whole),
        element("p", { class: "live-buttons" }, next, again), this.told),
    );
    this.again();
  }

  again() {
    [this.weight, this.stage, this.steps] = [0, 0, 0];
    this.draw();
  }

  next() {
    if (this.stage === 4) {
      this.weight = this.after(this.weight)[3];
      this.steps++;
      this.stage = 0;
    }
    this.stage++;
    this.draw();
  }

  /** Prediction, loss, gradient, and the weight after the step. */
  after(weight) {
    return this.bridge.one_step(weight, INPUT, TARGET, Number(this.rate.value));
  }

  draw() {
    const [prediction, loss, gradient, next] = this.after(this.weight);
    const w = short(this.weight);
    const stages = [
      ["Forward", `${w} · ${INPUT} = ${short(prediction)}: the model's prediction`],
      ["Loss", `(${short(prediction)} - ${TARGET})² = ${short(loss)}: one number for how wrong it is`],
      ["Backward", `the loss changes by ${short(gradient)} for each 1 that the weight grows: the gradient`],
      ["Step", `${w} - ${this.rate.value} · ${short(gradient)} = ${short(next)}: a little against it`],
    ];
    this.told.replaceChildren(...stages.map(([name, text], i) => {
      const isReached = i < this.stage;
      return element("li", { class: isReached ? "reached" : "ahead" }, element("strong", {}, name), isReached ? `: ${text}` : "");
    }));
    const values = [...WEIGHTS].map((weight) => this.after(weight)[1]);
    const around = [this.weight - 0.6, this.weight + 0.6];
    const lines = [{ places: WEIGHTS, values, look: "loss" }];
    if (this.stage >= 3) {
      lines.push({ places: around, values: around.map((weight) => loss + gradient * (weight - this.weight)), look: "slope" });
    }
    const marks = [{ x: this.weight, y: this.stage >= 2 ? loss : NaN, look: "loss" }];
    if (this.stage >= 4) marks.push({ x: next, y: this.after(next)[1], look: "slope" });
    const xLabel = `weight, after ${this.steps} ${this.steps === 1 ? "step" : "steps"}`;
    this.plot.draw({ x: [-1, 3], y: rangeOf(values), xLabel, yLabel: "loss", lines, marks });
  }
}
