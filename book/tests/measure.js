// How large the book is, how soon a page can be read and moved, how long a redraw takes, and how fast each section trains.
// node measure.js [seconds of training, 5 by default]
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import { BOOK, launch, open, serve } from "./browser.js";

const seconds = Number(process.argv[2] ?? 5);
const files = readdirSync(BOOK, { recursive: true }).map((name) => statSync(join(BOOK, name))).filter((file) => file.isFile());
const packed = readFileSync(join(BOOK, "live/bridge.bin"));
const mega = (bytes) => `${(bytes / 2 ** 20).toFixed(2)} MiB`;
console.log(`book ${mega(files.reduce((sum, { size }) => sum + size, 0))}, bridge ${mega(packed.length)} packed, ${mega(gunzipSync(packed).length)} unpacked`);

const { server, url } = await serve();
const browser = await launch();
for (const name of ["index", "huber"]) {
  const { page, close } = await open(browser, `${url}${name}.html`);
  await page.locator("loss-curve[data-state=live]").first().waitFor();
  const [read, live] = await page.evaluate(() => [performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd, performance.now()]);
  console.log(`${name}: to be read after ${read.toFixed(0)} ms, live before ${live.toFixed(0)} ms`);
  await close();
}
for (const name of ["huber", "cross_entropy", "ctc"]) {
  const { page, close } = await open(browser, `${url}${name === "ctc" ? "beyond" : name}.html`);
  const curve = page.locator(`loss-curve[name=${name}]`);
  await curve.scrollIntoViewIfNeeded();
  await curve.locator("figure").waitFor();
  const time = await curve.evaluate((curve) => {
    const made = curve.fields.at(-1);
    const [least, most] = made.control.range;
    const before = performance.now();
    for (let i = 0; i < 200; i++) {
      curve.set(made, Math.round(least + ((most - least) * i) / 199));
      curve.getBoundingClientRect();
    }
    return (performance.now() - before) / 200;
  });
  console.log(`${name}: a slider's redraw ${time.toFixed(2)} ms`);
  await close();
}
for (const name of ["bce", "bce_with_logits", "nll", "cross_entropy", "poisson_nll", "gaussian_nll", "hinge_embedding", "soft_margin", "multi_margin", "multilabel_soft_margin", "kl_div", "l1", "mse", "smooth_l1", "huber"]) {
  const { page, close } = await open(browser, `${url}${name}.html`);
  const element = page.locator("loss-training");
  await element.scrollIntoViewIfNeeded();
  await page.locator("loss-training[data-state=live]").waitFor();
  await element.getByRole("button", { name: "Train" }).click();
  await page.waitForFunction(() => document.querySelector("loss-training").losses.length > 0);
  await page.waitForTimeout(1000 * seconds);
  console.log(`${name}: ${Number(await element.getAttribute("data-rate")).toFixed(0)} steps a second`);
  await close();
}
await browser.close();
server.close();
