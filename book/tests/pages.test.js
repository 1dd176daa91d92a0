// Every page: loads without a fault, becomes live, fits a phone and a desk, on light and on dark, and says all without a script.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { BOOK, open, visit } from "./browser.js";

const PAGES = readdirSync(BOOK).filter((file) => file.endsWith(".html") && !["toc.html", "404.html"].includes(file));
const LIVE = "loss-curve, loss-training, loss-playground, one-step";

const book = visit();

/** Brings each live element near the screen, and waits for it. */
async function wake(page) {
  for (const element of await page.locator(LIVE).all()) {
    await element.scrollIntoViewIfNeeded();
    await element.evaluate((element) => new Promise((resolve) => {
      const look = () => (element.dataset.state ? resolve() : setTimeout(look, 20));
      look();
    }));
  }
}

test("there is a page for each chapter", () => {
  const chapters = readFileSync(new URL("../src/SUMMARY.md", import.meta.url), "utf8").match(/\((\w+)\.md\)/g);
  const expected = chapters.map((link) => `${link.slice(1, -4)}.html`);
  assert.deepEqual([...PAGES].sort(), expected.sort());
});

for (const name of PAGES) {
  for (const [width, colorScheme] of [[1280, "light"], [390, "dark"]]) {
    test(`${name} at ${width}, ${colorScheme}`, async () => {
      const { page, faults, close } = await open(book.browser, book.url + name, { viewport: { width, height: 800 }, colorScheme });
      await wake(page);
      assert.deepEqual(await page.locator(LIVE).evaluateAll((all) => all.map((element) => element.dataset.state).filter((state) => state !== "live")), []);
      const seen = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        broken: [...document.images].filter((image) => image.complete && image.naturalWidth === 0).map((image) => image.src),
        unnamed: [...document.querySelectorAll("main input, main select, main canvas, main button, main svg")].filter((element) => {
          const labelled = element.getAttribute("aria-label") || element.labels?.length || element.textContent.trim() || element.title;
          return !labelled && !element.closest("[aria-hidden=true]");
        }).map((element) => element.outerHTML.slice(0, 80)),
        cut: [...document.querySelectorAll(".live label, .live button, .live figcaption, .live small")].filter((element) => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline").map((element) => element.textContent),
        far: [...document.querySelectorAll("main a[href]")].map((link) => link.getAttribute("href")).filter((href) => href.endsWith(".md")),
      }));
      assert.deepEqual(seen, { wide: 0, broken: [], unnamed: [], cut: [], far: [] });
      assert.deepEqual(faults, []);
      await close();
    });
  }

  test(`${name} without a script`, async () => {
    const { page, faults, close } = await open(book.browser, book.url + name, { javaScriptEnabled: false });
    const broken = await page.locator("main img").evaluateAll((all) => all.filter((image) => image.naturalWidth === 0).length).catch(() => 0);
    assert.equal(broken, 0);
    for (const element of await page.locator("loss-curve:not([mistake]), loss-training, loss-playground").all()) {
      assert.ok(await element.locator("img").isVisible());
    }
    assert.ok((await page.locator("main").innerText()).length > 300);
    assert.doesNotMatch(await page.locator("main").innerText(), /\{\{|\$`|```/);
    assert.deepEqual(faults, []);
    await close();
  });
}

test("links within the book lead to pages and headings that are there", () => {
  const pages = new Map(PAGES.map((name) => [name, readFileSync(BOOK + name, "utf8")]));
  for (const [name, text] of pages) {
    const main = text.slice(text.indexOf("<main>"), text.indexOf("</main>"));
    for (const [, href] of main.matchAll(/<a [^>]*href="([^"]+)"/g)) {
      if (/^https?:/.test(href)) continue;
      const [file, id] = href.split("#");
      if (file && !file.endsWith(".html")) {
        assert.ok(readdirSync(`${BOOK}assets`).includes(file.replace("assets/", "")), `${name} links ${href}`);
        continue;
      }
      const there = pages.get(file || name);
      assert.ok(there, `${name} links ${href}`);
      if (id) assert.ok(there.includes(`id="${decodeURIComponent(id)}"`), `${name} links ${href}`);
    }
  }
});

test("without WebAssembly a page says so and shows its pictures", async () => {
  const context = await book.browser.newContext();
  await context.addInitScript("delete globalThis.WebAssembly");
  const page = await context.newPage();
  await page.goto(`${book.url}huber.html`);
  await wake(page);
  assert.equal(await page.locator("loss-curve").first().getAttribute("data-state"), "still");
  assert.match(await page.locator("loss-curve").first().innerText(), /can't be moved here/);
  assert.ok(await page.locator("loss-curve img").first().isVisible());
  assert.ok(await page.locator("loss-training img").first().isVisible());
  await context.close();
});

test("as a file it shows its pictures", async () => {
  const page = await book.browser.newPage();
  await page.goto(`file://${BOOK}huber.html`);
  assert.ok(await page.locator("loss-curve img").first().isVisible());
  await page.close();
});
