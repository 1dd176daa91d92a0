// The pages that move by themselves: one step at a time, and two losses side by side.
import assert from "node:assert/strict";
import { test } from "node:test";
import { open, visit } from "./browser.js";

const book = visit();
/** A point with none upon it. */
const AT = 5;

test("one step, a press at a time", async () => {
  const { page, faults, close } = await open(book.browser, `${book.url}what_a_loss_is.html`);
  const step = page.locator("one-step");
  const next = step.getByRole("button", { name: "Next" });
  const told = () => step.locator("li").allTextContents();
  await next.click();
  assert.match((await told())[0], /^Forward: 0 · 2 = 0/);
  for (let i = 0; i < 3; i++) await next.click();
  // (0 - 3)² = 9, and 2 · (0 - 3) · 2 = -12.
  const [, loss, backward, stepped] = await told();
  assert.match(loss, /= 9:/);
  assert.match(backward, /by -12 /);
  assert.match(stepped, /= 1.2:/);
  await next.click();
  assert.match((await told())[0], /^Forward: 1.2 · 2 = 2.4/);
  await step.getByRole("button", { name: "Start again" }).click();
  assert.deepEqual(await told(), ["Forward", "Loss", "Backward", "Step"]);
  assert.deepEqual(faults, []);
  await close();
});

test("two losses learn the same points, which can be moved", async () => {
  const { page, faults, close } = await open(book.browser, `${book.url}playground.html`);
  for (const task of ["numbers", "classes"]) {
    const ground = page.locator(`loss-playground[task=${task}]`);
    await ground.scrollIntoViewIfNeeded();
    await ground.locator("section").waitFor();
    const outputs = () => ground.evaluate((ground) => {
      const place = ground.isOfNumbers ? [0.3] : [0.3, 0.3];
      return ground.sides.map(({ learner }) => [...learner.outputs(Float32Array.from(place))].join());
    });
    const [a, b] = await outputs();
    assert.equal(a, b, "both begin with the same weights");
    await ground.getByRole("button", { name: "Train" }).click();
    await page.waitForFunction((task) => document.querySelector(`loss-playground[task=${task}]`).steps > 300, task, { timeout: 60_000 });
    await ground.getByRole("button", { name: "Pause" }).click();
    const after = await outputs();
    assert.notEqual(after[0], after[1]);
    assert.match(await ground.locator("[role=status]").textContent(), /steps\. Loss A: [\d.e-]+, Loss B: [\d.e-]+/);

    // A point by key and by hand.
    const target = () => ground.evaluate((ground, at) => ground.points[at].y, AT);
    const before = await target();
    await ground.locator(".point").nth(AT - 1).focus();
    await page.keyboard.press("ArrowRight");
    assert.equal(await ground.locator(".live-plot").first().locator(".point[tabindex='0']").count(), 1, "the tab key comes to one point");
    await page.keyboard.press(task === "numbers" ? "ArrowUp" : "Enter");
    const moved = await target();
    assert.notEqual(moved, before);
    const box = await ground.locator(".point").nth(AT).boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width / 2, box.y - 60, { steps: 3 });
    await page.mouse.up();
    assert.notEqual(await target(), moved);

    // Every loss can be chosen, and its option moved.
    for (const side of [0, 1]) {
      const choose = ground.locator("select").nth(side);
      for (const value of await choose.locator("option").evaluateAll((all) => all.map((option) => option.value))) {
        await choose.selectOption(value);
        const slider = ground.locator(".live-side").nth(side).locator("input[type=range]");
        if (await slider.count()) await slider.fill(await slider.getAttribute("max"));
        assert.equal(await ground.locator(".live-message[role=alert]").last().textContent(), "");
      }
    }
    await ground.getByRole("button", { name: "The first points" }).click();
    assert.equal(await target(), before);
  }
  assert.deepEqual(faults, []);
  await close();
});
