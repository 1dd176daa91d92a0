// <loss-training name="huber" torch="HuberLoss">: the section's example, trained here, with the reader's options.
import { Live, element, field } from "./page.js";
import { Plot, rangeOf } from "./plot.js";
import { Pad, digit } from "./digits.js";

/** Most points of a curve, each a mean over as many steps as it takes. */
const POINTS = 300;

/** What PyTorch's criterion of the same name has no option for. */
const OURS = { linear_cross_entropy: "chunk", adaptive_log_softmax: "reduction" };

/** An option's name in Python. */
const python = (name) => name.replaceAll("-", "_");

/** An option's value in Python. */
function literal({ name, value_name }, value) {
  // Of whole numbers it would be a tensor of them, which PyTorch refuses as weights.
  if (name.endsWith("weight")) return `torch.tensor([${value}], dtype=torch.float)`;
  if (name === "reduction") return `"${value}"`;
  return value_name.includes(",") ? `[${value}]` : value;
}

export class LossTraining extends Live {
  fill(bridge) {
    this.name = this.getAttribute("name");
    const trainer = new bridge.Training(this.name, [], new bridge.DataCache());
    this.about = JSON.parse(trainer.options());
    trainer.free();
    this.isOfDigits = this.about.is_of_digits;

    this.fields = this.about.options.map((option) => this.option(option));
    const under = (heading) => this.fields.filter(({ option }) => option.heading === heading).map(({ whole }) => whole);
    const own = [...under("Loss"), ...under("Data")];
    const how = element("details", {}, element("summary", {}, "How to train"), element("div", { class: "live-fields" }, ...under("Training")));

    this.plot = new Plot("The loss of each training step", 200);
    this.status = element("p", { class: "live-figures", role: "status" }, "Not started.");
    this.lines = element("pre", { class: "live-lines", hidden: true });
    this.digits = element("div", { class: "live-digits" });
    this.message = element("p", { class: "live-message", role: "alert" });
    const button = (text, onclick) => element("button", { type: "button", onclick }, text);
    this.buttons = {
      start: button("Train", () => this.start()),
      stop: button("Stop", () => this.worker.postMessage({ kind: "stop" })),
      goOn: button("Go on", () => this.goOn()),
    };
    this.command = element("code", { class: "language-console" });
    this.torch = element("code", { class: "language-python" });
    const code = (label, inside) => element("div", { class: "live-code" }, element("span", {}, label), element("pre", {}, inside));
    this.pad = this.isOfDigits ? new Pad((pixels) => this.worker?.postMessage({ kind: "look", pixels })) : undefined;
    this.padPlace = element("div", { hidden: true });
    if (this.pad) this.padPlace.append(this.pad.whole);
    this.replaceChildren(
      element("section", { class: "live", "aria-label": "Train it" },
        element("div", { class: "live-fields" }, ...own),
        how,
        element("p", { class: "live-buttons" }, ...Object.values(this.buttons)),
        this.message,
        this.status,
        this.plot.svg,
        this.lines,
        this.digits,
        this.padPlace,
        code("The same on your machine", this.command),
        code("The loss in PyTorch", this.torch),
      ),
    );
    this.show("idle");
    this.say();
    this.losses = [];
    this.draw();
  }

  /** A field for an option of the example; what is empty is left at its default. */
  option(option) {
    const { name, help, is_flag, value_name } = option;
    const usual = { epochs: this.about.epochs, "batch-size": this.about.batch_size, lr: this.about.lr, reduction: this.about.reduction }[name];
    const changed = () => {
      made.tell("");
      this.say();
    };
    if (is_flag) {
      const input = element("input", { type: "checkbox", onchange: changed });
      const made = { option, ...field(name, input, element("small", {}, help)), argument: () => (input.checked ? [`--${name}`] : []) };
      return made;
    }
    const input = element("input", { type: "text", size: 9, autocomplete: "off", placeholder: option.default || (usual ?? value_name), oninput: changed });
    const made = {
      option,
      ...field(name, input, element("small", {}, help)),
      argument: () => (input.value.trim() === "" ? [] : [`--${name}`, input.value.trim()]),
    };
    return made;
  }

  /** What is set, as on a command line. */
  arguments() {
    return this.fields.flatMap((made) => made.argument());
  }

  /** The command, and PyTorch's line, for what is set. */
  say() {
    // A page has the bundled digits, where a terminal would ask for MNIST.
    const data = this.isOfDigits ? ["--dataset", "digits"] : [];
    const quoted = [...data, ...this.arguments()].map((word) => (/^[\w.,=-]+$/.test(word) ? word : `'${word}'`));
    this.command.textContent = [`cargo run --example ${this.name}`, ...(quoted.length ? ["--", ...quoted] : [])].join(" ");
    const asked = this.fields.filter(({ option: { heading, name } }) => (heading === "Loss" || name === "reduction") && name !== OURS[this.name]);
    const options = asked.flatMap(({ option, argument }) => {
      const [name, value] = argument();
      if (option.is_flag) return name ? [`${python(option.name)}=True`] : [];
      // What an example does where nothing is said is not always what PyTorch does.
      const said = value ?? (option.name === "reduction" && this.about.reduction !== "mean" ? this.about.reduction : option.default);
      return said ? [`${python(option.name)}=${literal(option, said)}`] : [];
    });
    const [, criterion, first] = this.getAttribute("torch").match(/^(\w+)(?:\((.*)\))?$/);
    this.torch.textContent = `torch.nn.${criterion}(${[first, ...options].filter(Boolean).join(", ")})`;
  }

  show(state) {
    const { start, stop, goOn } = this.buttons;
    start.textContent = state === "idle" ? "Train" : "Start again";
    start.disabled = state === "running";
    stop.disabled = state !== "running";
    goOn.disabled = state !== "stopped";
    this.dataset.training = state;
  }

  start() {
    for (const { tell } of this.fields) tell("");
    this.message.textContent = "";
    for (const made of this.fields) {
      const wrong = this.wrong(made);
      if (!wrong) continue;
      this.refuse(made, wrong);
      return;
    }
    this.worker ??= this.employ();
    this.losses = [];
    this.time = 0;
    this.timed = 0;
    this.lines.hidden = true;
    this.digits.replaceChildren();
    this.status.textContent = "Preparing the data…";
    this.show("running");
    this.worker.postMessage({ kind: "start", name: this.name, args: this.arguments() });
  }

  /** What is wrong with a number before the example looks at it: not all that can be read as one makes sense. */
  wrong({ option, argument }) {
    const text = argument()[1];
    if (text === undefined) return undefined;
    const numbers = text.split(",").map(Number);
    // Options of a loss are numbers, or a number for each class.
    const isNumber = option.default !== "" || option.heading === "Loss";
    if (isNumber && !numbers.every(Number.isFinite)) return "needs a number";
    return numbers.some((number) => Math.abs(number) > 1e9) ? "needs a number of at most 1e9" : undefined;
  }

  /** Says beside a field what is wrong with it, where it can be seen. */
  refuse(made, message) {
    made.whole.closest("details")?.setAttribute("open", "");
    made.tell(message);
  }

  goOn() {
    this.show("running");
    this.worker.postMessage({ kind: "go on" });
  }

  employ() {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this[`on_${data.kind}`](data);
    worker.onerror = (event) => this.on_error({ message: event.message ?? "the worker can't be started" });
    return worker;
  }

  on_losses({ losses, done, time, taken, total, epoch }) {
    for (const loss of losses) this.losses.push(loss);
    this.time += time;
    if (time > 0) this.timed += done;
    const count = (number) => number.toLocaleString("en");
    const rate = this.time > 0 ? `, ${count(Math.round((1000 * this.timed) / this.time))} steps a second` : "";
    this.dataset.rate = this.time > 0 ? (1000 * this.timed) / this.time : 0;
    this.status.textContent = `Step ${count(taken)} of ${count(total)}, epoch ${epoch}${rate}.`;
    Object.assign(this, { taken, total });
    this.draw();
  }

  on_report({ lines, shown }) {
    const isOver = this.taken >= this.total;
    this.lines.hidden = false;
    this.lines.textContent = [isOver ? "Training process has finished." : `After ${this.taken} steps:`, ...lines].join("\n");
    this.digits.replaceChildren(...shown.map(digit));
    this.show(isOver ? "over" : "stopped");
    // Not every example looks at one image at a time.
    this.padPlace.hidden = !shown.length;
    if (shown.length) this.pad.look();
  }

  on_look({ shown }) {
    this.pad.tell(shown[0]?.prediction);
  }

  /** Beside the field that it names, if it names one. */
  on_error({ message }) {
    const named = ({ option }) => new RegExp(`(^|[^\\w-])(--)?(${option.name}|${option.name.replaceAll("-", "_")})([^\\w-]|$)`).test(message);
    const made = this.fields.filter((made) => made.argument().length).find(named) ?? this.fields.find(named);
    if (made) {
      this.refuse(made, message);
    } else this.message.textContent = message;
    this.status.textContent = "Not trained.";
    this.show("idle");
  }

  draw() {
    const size = Math.max(Math.ceil(this.losses.length / POINTS), 1);
    const [places, values] = [[], []];
    for (let start = 0; start < this.losses.length; start += size) {
      const group = this.losses.slice(start, start + size);
      places.push(start + group.length);
      values.push(group.reduce((sum, loss) => sum + loss, 0) / group.length);
    }
    const y = rangeOf(values) ?? [0, 1];
    const label = size === 1 ? "loss" : `loss, mean of ${size} steps`;
    this.plot.draw({ x: [0, Math.max(this.losses.length, 1)], y, xLabel: "mini-batch", yLabel: label, lines: [{ places, values, look: "loss" }] });
  }
}
