// What a page's elements become once there is a script and WebAssembly. Without, they show what stands in them.
import { LossCurve } from "./curve.js";
import { OneStep } from "./one_step.js";
import { LossPlayground } from "./playground.js";
import { LossTraining } from "./training.js";

customElements.define("loss-curve", LossCurve);
customElements.define("loss-training", LossTraining);
customElements.define("loss-playground", LossPlayground);
customElements.define("one-step", OneStep);
