// Every curve: what is moved changes it to what the crate computes natively; what can't be is told beside its field.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { BOOK, open, visit } from "./browser.js";

/** Written by the bridge's own test. */
const NUMBERS = JSON.parse(readFileSync(new URL("../../target/book-numbers.json", import.meta.url), "utf8"));
const PAGES = readdirSync(BOOK).filter((file) => file.endsWith(".html"));
const shown = new Set();

const book = visit();

const isNear = (a, b) => (Number.isNaN(a) && b === null) || Math.abs(a - b) <= 1e-3 * Math.max(Math.abs(b), 1e-3);

/** Loss and derivative as the page tells them. */
const figures = (text) => [...text.matchAll(/loss (\S+), derivative (\S+)/g)].map(([, loss, slope]) => [loss, slope].map((word) => Number(word.replace(/[;,]$/, "").replace("∞", "Infinity"))));

for (const name of PAGES) {
  if (!/<loss-curve/.test(readFileSync(BOOK + name, "utf8"))) continue;
  test(`the curves of ${name}`, async () => {
    const { page, faults, close } = await open(book.browser, book.url + name);
    for (const curve of await page.locator("loss-curve").all()) {
      await curve.scrollIntoViewIfNeeded();
      await curve.locator("figure").waitFor();
      const view = await curve.getAttribute("name");
      const isMistake = (await curve.getAttribute("mistake")) !== null;
      shown.add(view);
      const fields = await curve.locator(".live-field").all();
      const set = async (i, value) => {
        const select = fields[i].locator("select");
        if (await select.count()) return select.selectOption(String(value));
        await fields[i].locator("input[type=text]").fill(String(value));
        assert.equal(await fields[i].locator("[role=alert]").textContent(), "", `${view}: ${value}`);
      };
      for (const { values, places, value, slope } of NUMBERS[view]) {
        // Of a mistake the first control tells the lines apart, which are all drawn.
        const [line, rest] = isMistake ? [values[0], values.slice(1)] : [undefined, values];
        for (const [i, setting] of rest.entries()) await set(i + 1, setting);
        const choices = isMistake ? await curve.evaluate((curve) => curve.controls[0].choices.map(([value]) => value)) : [undefined];
        const at = choices.indexOf(line);
        for (const [j, place] of places.entries()) {
          await set(0, place);
          const found = figures(await curve.locator(".live-figures").textContent())[at];
          assert.ok(isNear(found[0], value[j]) && isNear(found[1], slope[j]), `${view} ${values} at ${place}: ${found}, not ${value[j]} and ${slope[j]}`);
        }
        // Not the figures alone: the line that is drawn is that of the places.
        const path = await curve.locator(".live-plot path.line").first().getAttribute("d");
        assert.ok(path.length > 1000 && !path.includes("NaN"), view);
      }

      // A slider, by hand and by key, and back.
      const before = await curve.locator(".live-figures").textContent();
      const slider = fields[0].locator("input[type=range]");
      await slider.focus();
      await page.keyboard.press("ArrowLeft");
      assert.notEqual(await curve.locator(".live-figures").textContent(), before, `${view}: a key moves the slider`);
      assert.equal(page.url(), book.url + name, "an arrow key on a slider turns no page");
      for (const input of await curve.locator("input[type=text]").all()) {
        const field = curve.locator(".live-field").filter({ has: page.locator(`#${await input.getAttribute("id")}`) });
        const good = await input.inputValue();
        for (const bad of ["", "NaN", "1e300", "-1e300", "oops"]) {
          const told = await curve.locator(".live-figures").textContent();
          await input.fill(bad);
          assert.match(await field.locator("[role=alert]").textContent(), /needs a number from/, `${view}: ${bad}`);
          assert.equal(await input.getAttribute("aria-invalid"), "true");
          assert.equal(await curve.locator(".live-figures").textContent(), told, "what was wrong changes nothing");
        }
        await input.fill(good);
        assert.equal(await field.locator("[role=alert]").textContent(), "");
      }
      await curve.getByRole("button", { name: "Reset" }).click();
    }
    assert.deepEqual(faults, []);
    await close();
  });
}

test("a finger on the picture moves the prediction, and the target", async () => {
  const { page, faults, close } = await open(book.browser, `${book.url}mse.html`);
  const curve = page.locator("loss-curve").first();
  await curve.locator("figure").waitFor();
  const plot = curve.locator(".live-plot").first();
  const box = await plot.boundingBox();
  const inputs = curve.locator("input[type=text]");
  const drag = async (from, to) => {
    await page.mouse.move(box.x + from * box.width, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + to * box.width, box.y + box.height / 2, { steps: 4 });
    await page.mouse.up();
  };
  // The prediction stands at three quarters, the target in the middle.
  await drag(0.76, 0.9);
  assert.ok(Number(await inputs.nth(0).inputValue()) > 2);
  await drag(0.54, 0.3);
  assert.ok(Number(await inputs.nth(1).inputValue()) < -1);
  assert.deepEqual(faults, []);
  await close();
});

test("every loss and every mistake is on a page", () => {
  assert.deepEqual([...shown].sort(), Object.keys(NUMBERS).sort());
});
