// Takes the README's picture of the book: node picture.js FILE.png
import { launch, open, serve } from "./browser.js";

const { server, url } = await serve();
const browser = await launch();
const { page } = await open(browser, `${url}cross_entropy.html`, { viewport: { width: 1180, height: 760 } });
const element = page.locator("loss-training");
await element.scrollIntoViewIfNeeded();
await page.locator("loss-training[data-state=live]").waitFor();
await element.getByLabel("limit").evaluate((input) => (input.value = 20000));
await element.getByLabel("epochs").evaluate((input) => (input.value = 5));
await element.getByRole("button", { name: "Train" }).click();
await page.locator("loss-training[data-training=over]").waitFor({ timeout: 120_000 });
await element.evaluate((element) => scrollTo(0, element.getBoundingClientRect().top + scrollY - 60));
await page.waitForTimeout(300);
await page.screenshot({ path: process.argv[2] });
await browser.close();
server.close();
