// A server for the built book, and a browser that looks at it.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { after, before } from "node:test";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const BOOK = process.env.BOOK ?? fileURLToPath(new URL("../../target/book/", import.meta.url));

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".bin": "application/octet-stream", ".woff2": "font/woff2", ".png": "image/png" };

/** The book on a port of this machine, as any static host would serve it. */
export function serve(port = 0) {
  const server = createServer((request, response) => {
    const path = join(BOOK, normalize(decodeURIComponent(new URL(request.url, "http://book").pathname)));
    const file = existsSync(path) && statSync(path).isDirectory() ? join(path, "index.html") : path;
    if (!file.startsWith(BOOK) || !existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
    createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => resolve({ server, url: `http://127.0.0.1:${server.address().port}/` }));
  });
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

/** A page that remembers all that goes wrong on it. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("requestfailed", (request) => faults.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("response", (response) => response.status() >= 400 && faults.push(`${response.url()}: ${response.status()}`));
  await page.goto(url);
  return { page, faults, close: () => context.close() };
}

/** For the tests of a file: where the book is served, and a browser, from before the first until after the last. */
export function visit() {
  const visitor = {};
  before(async () => {
    Object.assign(visitor, await serve(), { browser: await launch() });
  });
  after(async () => {
    await visitor.browser.close();
    visitor.server.close();
  });
  return visitor;
}
