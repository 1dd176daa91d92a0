// What the elements have in common: the bridge, and pieces of a page.
import { load } from "./load.js";

/** The bridge, once it is there. */
export const ready = load();
// Each element that waits for it says so itself if it never comes.
ready.catch(() => {});

/** An element with attributes, which may be listeners too, and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** An element that is filled once the bridge is there and it comes near the screen. */
export class Live extends HTMLElement {
  connectedCallback() {
    // The book turns pages by arrow keys, which sliders need.
    this.addEventListener("keydown", (event) => event.stopPropagation());
    const seen = new IntersectionObserver(
      async (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        seen.disconnect();
        try {
          await this.fill(await ready);
          this.dataset.state = "live";
        } catch (error) {
          this.append(element("p", { class: "live-note" }, `This can't be moved here: ${error.message ?? error}`));
          this.dataset.state = "still";
        }
      },
      { rootMargin: "400px" },
    );
    seen.observe(this);
  }
}

let count = 0;
/** A name that no other element of the page has. */
const unique = (name) => `${name}-${++count}`;

/** A number in as few digits as tell it. */
export function short(number) {
  if (!Number.isFinite(number)) return Number.isNaN(number) ? "not a number" : number > 0 ? "∞" : "-∞";
  const size = Math.abs(number);
  return String(Number(number.toPrecision(size !== 0 && (size < 1e-3 || size >= 1e6) ? 3 : 4)));
}

/** A field with its label and a place for what is wrong with it. */
export function field(label, input, ...beside) {
  const id = unique("field");
  const message = element("span", { class: "live-message", role: "alert", id: `${id}-message` });
  input.id = id;
  input.setAttribute("aria-describedby", message.id);
  const whole = element("div", { class: "live-field" }, element("label", { for: id }, label), input, ...beside, message);
  return {
    whole,
    /** Says what is wrong; nothing takes it away. */
    tell(text) {
      message.textContent = text;
      input.setAttribute("aria-invalid", text ? "true" : "false");
    },
  };
}
