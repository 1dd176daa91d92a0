// <loss-playground task="numbers"> or "classes">: two losses learn the same points, which the reader moves.
import { Live, element, field, short } from "./page.js";
import { Plot, draw, set } from "./plot.js";

const LOSSES = {
  numbers: {
    mse: { text: "MSE" },
    l1: { text: "L1" },
    huber: { text: "Huber", option: "delta", range: [0.05, 1], usual: 0.1 },
    smooth_l1: { text: "Smooth L1", option: "beta", range: [0, 1], usual: 0.1 },
  },
  classes: {
    cross_entropy: { text: "Cross-entropy", option: "label_smoothing", range: [0, 0.9], usual: 0 },
    multi_margin: { text: "Multi-margin", option: "margin", range: [0.1, 3], usual: 1 },
    mse: { text: "MSE of 0 and 1" },
  },
};
const FIRST = { numbers: ["mse", "huber"], classes: ["cross_entropy", "multi_margin"] };
/** Steps in a frame, so that the eye can follow, and most of them at once: in the end a network learns what is wrong, too. */
const [AT_ONCE, MOST] = [10, 3000];
/** Time for training in a frame; the rest is for drawing. */
const BUDGET = 8;
const SEED = 42;

/** The targets that a point can have, and those that the picture shows. */
const [LIMIT, EDGE] = [1.05, 1.1];
/** Where the networks are asked what they make of it: along the axis, and on a grid. */
const PLACES = Float32Array.from({ length: 121 }, (_, i) => -1 + i / 60);
const SIDE = 41;
const GRID = Float32Array.from({ length: SIDE * SIDE * 2 }, (_, i) => -1 + (2 * (i % 2 === 0 ? (i >> 1) % SIDE : Math.floor((i >> 1) / SIDE))) / (SIDE - 1));

/** A row of numbers that looks like chance and is always the same. */
function chance(seed) {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function someNumbers() {
  const random = chance(7);
  const points = Array.from({ length: 48 }, (_, i) => {
    const x = -0.98 + (i * 1.96) / 47;
    return { x: [x], y: 0.6 * Math.sin(2.5 * x) - 0.2 + 0.12 * (random() - 0.5) };
  });
  for (const outlier of [9, 13, 18, 23, 27, 33]) points[outlier].y = 0.95;
  return points;
}

function someClasses() {
  const random = chance(11);
  const points = Array.from({ length: 40 }, (_, i) => {
    const y = i % 2;
    const angle = Math.PI * random();
    const spread = () => 0.16 * (random() - 0.5);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const x = y === 0 ? [0.6 * cos - 0.25, 0.6 * sin - 0.15] : [0.6 * cos + 0.25, 0.15 - 0.6 * sin];
    return { x: [x[0] + spread(), x[1] + spread()], y };
  });
  for (const wrong of [4, 9, 22]) points[wrong].y = 1 - points[wrong].y;
  // So that the next one is the next to the right.
  return points.sort((a, b) => a.x[0] - b.x[0]);
}

export class LossPlayground extends Live {
  fill(bridge) {
    this.bridge = bridge;
    this.task = this.getAttribute("task");
    this.isOfNumbers = this.task === "numbers";
    this.sides = FIRST[this.task].map((name, i) => this.side(name, i));
    const button = (text, onclick) => element("button", { type: "button", onclick }, text);
    this.go = button("Train", () => (this.isRunning ? this.pause() : this.run()));
    this.status = element("p", { class: "live-figures", role: "status" });
    this.message = element("p", { class: "live-message", role: "alert" });
    const plots = this.isOfNumbers ? [new Plot("The points, and what each loss makes of them", 320)] : this.sides.map(({ name }) => new Plot(`The points, and the classes under loss ${name}`, 280));
    // What is in an image would be nothing to a screen reader.
    for (const { svg } of plots) set(svg, { role: "group" });
    this.plots = plots;
    const pictures = element("div", { class: this.isOfNumbers ? "" : "live-pair" }, ...plots.map(({ svg }) => svg));
    const help = this.isOfNumbers ? "Drag a point. By keys: ← and → choose one, ↑ and ↓ move it." : "Press a point to give it the other class. By keys: ← and → choose one, Enter presses it.";
    this.replaceChildren(
      element("section", { class: "live", "aria-label": "Two losses side by side" },
        element("div", { class: "live-fields" }, ...this.sides.map(({ whole }) => whole)),
        element("p", { class: "live-buttons" }, this.go, button("Start again", () => this.again()), button("The first points", () => this.refresh())),
        this.message, pictures, this.status, element("p", { class: "live-note" }, help)),
    );
    this.refresh();
  }

  /** The choice of a loss and its option. */
  side(first, i) {
    const losses = LOSSES[this.task];
    const choose = element("select", {}, ...Object.entries(losses).map(([name, { text }]) => element("option", { value: name, selected: name === first }, text)));
    const name = "AB"[i];
    const loss = field(`Loss ${name}`, choose);
    const place = element("div");
    const side = { name, whole: element("div", { class: `live-side line-${i}` }, loss.whole, place), get loss() { return choose.value; }, option: 0 };
    const show = () => {
      const { option, range, usual } = losses[choose.value];
      side.option = usual ?? 0;
      place.replaceChildren();
      if (!option) return;
      const slider = element("input", { type: "range", min: range[0], max: range[1], step: 0.01, value: usual });
      const number = element("output", {}, short(usual));
      slider.addEventListener("input", () => {
        side.option = Number(slider.value);
        number.textContent = short(side.option);
        this.again();
      });
      place.append(field(option, slider, number).whole);
    };
    choose.addEventListener("change", () => {
      show();
      this.again();
    });
    show();
    return side;
  }

  refresh() {
    this.points = this.isOfNumbers ? someNumbers() : someClasses();
    this.again();
  }

  data() {
    return [Float32Array.from(this.points.flatMap(({ x }) => x)), Float32Array.from(this.points.map(({ y }) => y))];
  }

  /** New learners, both from the same weights. */
  again() {
    this.steps = 0;
    if (!this.isRunning) this.go.textContent = "Train";
    else this.until = MOST;
    try {
      const [x, y] = this.data();
      for (const side of this.sides) {
        side.learner?.free();
        side.learner = undefined;
        side.learner = new this.bridge.Learner(this.task, side.loss, side.option, x, y, SEED);
        side.value = NaN;
      }
      this.message.textContent = "";
      this.draw();
    } catch (error) {
      this.pause();
      this.message.textContent = error.message;
    }
  }

  run() {
    this.isRunning = true;
    this.until = this.steps + MOST;
    this.go.textContent = "Pause";
    this.wait();
  }

  wait() {
    this.waiting = requestAnimationFrame(() => this.frame());
  }

  pause() {
    this.isRunning = false;
    // Else a press right after would have two of them take turns.
    cancelAnimationFrame(this.waiting);
    this.go.textContent = this.steps ? "Go on" : "Train";
  }

  frame() {
    if (!this.isConnected) return this.pause();
    try {
      const end = performance.now() + BUDGET;
      for (let i = 0; i < AT_ONCE && performance.now() < end; i++) {
        for (const side of this.sides) side.value = side.learner.train(1);
        this.steps++;
      }
      this.draw();
      if (this.steps >= this.until) return this.pause();
      this.wait();
    } catch (error) {
      this.pause();
      this.message.textContent = error.message;
    }
  }

  changed() {
    const [x, y] = this.data();
    for (const { learner } of this.sides) learner.replace(x, y);
    this.draw();
  }

  draw() {
    this.status.textContent = `${this.steps.toLocaleString("en")} steps. ${this.sides.map(({ name, value }) => `Loss ${name}: ${Number.isNaN(value) ? "not known yet" : short(value)}`).join(", ")}.`;
    if (this.isOfNumbers) this.drawNumbers();
    else this.drawClasses();
  }

  drawNumbers() {
    const lines = this.sides.map(({ learner }, i) => ({ places: PLACES, values: learner.outputs(PLACES), look: `line-${i}` }));
    const dots = this.points.map(({ x, y }) => ({ x: x[0], y, look: "point" }));
    this.plots[0].draw({ x: [-1, 1], y: [-EDGE, EDGE], xLabel: "input", yLabel: "target", lines, dots });
    const fixed = { role: "slider", "aria-orientation": "vertical", "aria-valuemin": -LIMIT, "aria-valuemax": LIMIT };
    this.hold(this.plots[0], fixed, ({ x, y }) => ({ "aria-label": `target at ${short(x[0])}`, "aria-valuenow": short(y) }));
  }

  drawClasses() {
    this.plots.forEach((plot, i) => {
      const scores = this.sides[i].learner.outputs(GRID);
      const dots = this.points.map(({ x, y }) => ({ x: x[0], y: x[1], look: `point class-${y}` }));
      plot.draw({ x: [-1, 1], y: [-1, 1], xLabel: "", yLabel: `loss ${this.sides[i].name}`, lines: [], dots });
      const [width, height] = [plot.x(1) - plot.x(-1), plot.y(-1) - plot.y(1)].map((size) => size / (SIDE - 1));
      for (const cls of [0, 1]) {
        let path = "";
        for (let at = 0; at < SIDE * SIDE; at++) {
          if (scores[2 * at + 1] > scores[2 * at] !== (cls === 1)) continue;
          const [x, y] = [plot.x(GRID[2 * at]) - width / 2, plot.y(GRID[2 * at + 1]) - height / 2];
          path += `M${x.toFixed(1)} ${y.toFixed(1)}h${width.toFixed(1)}v${height.toFixed(1)}h${(-width).toFixed(1)}z`;
        }
        draw(plot.under, "path", { class: `area class-${cls}`, d: path });
      }
      this.hold(plot, { role: "button" }, ({ x, y }) => ({ "aria-label": `the point at ${short(x[0])}, ${short(x[1])}: class ${y}` }));
    });
  }

  /** Gives a point another target, as near to this as it can be, or the other class. */
  move(point, y) {
    point.y = this.isOfNumbers ? Math.min(Math.max(y, -LIMIT), LIMIT) : 1 - point.y;
    this.changed();
  }

  /** Makes points that can be moved, or given the other class; `describe` says in attributes what one is by now. */
  hold(plot, fixed, describe) {
    plot.svg.querySelectorAll(".dot").forEach((dot, i) => {
      set(dot, describe(this.points[i]));
      if (dot.hasAttribute("tabindex")) return;
      // The tab key comes to one of them, the arrow keys to the others.
      set(dot, { ...fixed, tabindex: i === 0 ? 0 : -1 });
      dot.addEventListener("focus", () => {
        for (const other of dot.parentNode.children) set(other, { tabindex: other === dot ? 0 : -1 });
      });
      dot.addEventListener("keydown", (event) => {
        const next = { ArrowRight: dot.nextSibling, ArrowLeft: dot.previousSibling }[event.key];
        if (next) {
          event.preventDefault();
          next.focus();
        }
        const by = (this.isOfNumbers ? { ArrowUp: 0.05, ArrowDown: -0.05 } : { Enter: 0, " ": 0 })[event.key];
        if (by === undefined) return;
        event.preventDefault();
        this.move(this.points[i], this.points[i].y + by);
      });
      dot.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        const point = this.points[i];
        if (!this.isOfNumbers) return this.move(point);
        // Fast hands leave the dot behind, so the window listens.
        const move = (moved) => {
          const box = plot.svg.getBoundingClientRect();
          const top = plot.y(EDGE);
          const share = (moved.clientY - box.top - top) / (plot.y(-EDGE) - top);
          this.move(point, EDGE - 2 * EDGE * share);
        };
        const end = () => {
          removeEventListener("pointermove", move);
          removeEventListener("pointerup", end);
        };
        addEventListener("pointermove", move);
        addEventListener("pointerup", end);
      });
    });
  }
}
