// Every section's training: ends where the example ends on a terminal, can be stopped and gone on with, and tells what is wrong.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { open, visit } from "./browser.js";

/** 300 steps of each kind of data. */
const OF_DIGITS = { limit: 3000, epochs: 1 };
const OF_NOISE = { limit: 9600, epochs: 2 };
const OF_PIECES = { limit: 6400, epochs: 3 };
const OF_ROWS = { limit: 100, epochs: 30 };
const SECTIONS = {
  bce: OF_NOISE, bce_with_logits: OF_NOISE, nll: OF_DIGITS, cross_entropy: OF_DIGITS, poisson_nll: OF_DIGITS,
  gaussian_nll: OF_DIGITS, hinge_embedding: OF_NOISE, soft_margin: OF_NOISE, multi_margin: OF_DIGITS,
  multilabel_soft_margin: OF_DIGITS, kl_div: OF_DIGITS, l1: OF_ROWS, mse: OF_ROWS, smooth_l1: OF_ROWS, huber: OF_ROWS,
};
/** Of triplet_margin a difference in the last digit is ten times as much after some 15 steps. */
const FEW = { limit: 400, epochs: 1 };
const BEYOND = {
  multilabel_margin: OF_DIGITS, margin_ranking: OF_DIGITS, cosine_embedding: OF_DIGITS, triplet_margin: FEW,
  triplet_margin_with_distance: OF_DIGITS, ctc: OF_DIGITS, linear_cross_entropy: OF_PIECES, adaptive_log_softmax: OF_PIECES,
};

const book = visit();

/** The training of a page, once it can be started. */
async function training(name) {
  const opened = await open(book.browser, `${book.url}${name in BEYOND ? "beyond" : name}.html`);
  const element = opened.page.locator(`loss-training[name=${name}]`);
  await element.scrollIntoViewIfNeeded();
  await opened.page.locator(`loss-training[name=${name}][data-state=live]`).waitFor();
  await element.locator("summary").click();
  return { ...opened, element, press: (button) => element.getByRole("button", { name: button, exact: true }).click() };
}

const fill = (element, name, value) => element.getByLabel(name, { exact: true }).fill(String(value));
const ended = (element, state) => element.and(element.page().locator(`[data-training=${state}]`)).waitFor({ timeout: 120_000 });

for (const [name, options] of Object.entries({ ...SECTIONS, ...BEYOND })) {
  test(`${name} ends as on a terminal`, async () => {
    const { page, faults, close, element, press } = await training(name);
    for (const [option, value] of Object.entries(options)) await fill(element, option, value);
    const line = await element.locator(".live-code code").first().textContent();
    assert.match(line, new RegExp(`^cargo run --example ${name} -- `));
    await press("Train");
    await ended(element, "over");
    const losses = await element.evaluate((element) => element.losses);
    const lines = (await element.locator(".live-lines").textContent()).split("\n");
    await close();

    // The command that the page shows, and its log.
    const log = join(mkdtempSync(join(tmpdir(), "book-")), "log.csv");
    const [cargo, ...rest] = line.split(" ");
    const run = spawnSync(cargo, [...rest, "--no-progress", "--log", log], { cwd: fileURLToPath(new URL("../..", import.meta.url)), encoding: "utf8" });
    assert.equal(run.status, 0, run.stderr);
    const expected = readFileSync(log, "utf8").trim().split("\n").slice(1).map((row) => Number(row.split(",")[2]));
    const steps = options === FEW ? 40 : 300;
    assert.deepEqual([losses.length, expected.length], [steps, steps]);
    for (const [i, loss] of losses.entries()) {
      assert.ok(Math.abs(loss - expected[i]) <= 1e-3 * Math.max(1, Math.abs(expected[i])), `step ${i + 1}: ${loss}, not ${expected[i]}`);
    }
    const figure = (text) => Number(text.match(/: ([\d.]+)/)[1]);
    const printed = run.stdout.trim().split("\n").filter((line) => line.startsWith("Test "));
    assert.equal(lines.length, printed.length + 1);
    for (const [i, text] of printed.entries()) assert.ok(Math.abs(figure(lines[i + 1]) - figure(text)) <= 0.11, `${lines[i + 1]}, not ${text}`);
    assert.deepEqual(faults, []);
  });
}

test("stopped and gone on with is the same training; a reload begins anew", async () => {
  const { page, faults, close, element, press } = await training("cross_entropy");
  await fill(element, "limit", 20000);
  await fill(element, "epochs", 1);
  await press("Train");
  await page.waitForFunction(() => document.querySelector("loss-training").losses.length > 20);
  await press("Stop");
  await ended(element, "stopped");
  const stopped = await element.evaluate((element) => element.losses.length);
  assert.ok(stopped < 2000);
  assert.match(await element.locator(".live-lines").textContent(), /^After \d+ steps:\nTest accuracy: /);
  assert.equal(await element.locator(".live-digits figure").count(), 10);

  // Between two runs it looks at what is drawn.
  await element.locator(".live-pad").focus();
  for (let i = 0; i < 14; i++) await page.keyboard.press("Shift+ArrowDown");
  await element.getByText(/The model says: \d/).waitFor();

  await press("Go on");
  await ended(element, "over");
  const pieces = await element.evaluate((element) => element.losses);
  const report = await element.locator(".live-lines").textContent();
  await press("Start again");
  await ended(element, "over");
  assert.deepEqual(await element.evaluate((element) => element.losses), pieces);
  assert.equal(await element.locator(".live-lines").textContent(), report);

  await page.reload();
  await element.scrollIntoViewIfNeeded();
  await page.locator("loss-training[data-state=live]").waitFor();
  assert.match(await element.locator("[role=status]").textContent(), /Not started/);
  assert.deepEqual(faults, []);
  await close();
});

test("what can't be is told beside its field, and the page goes on", async () => {
  for (const name of Object.keys({ ...SECTIONS, ...BEYOND })) {
    const { page, faults, close, element, press } = await training(name);
    await fill(element, "limit", 50);
    await fill(element, "epochs", 1);
    for (const input of await element.locator("input[type=text]").all()) {
      const field = element.locator(".live-field").filter({ has: page.locator(`#${await input.getAttribute("id")}`) });
      const good = await input.inputValue();
      for (const bad of ["NaN", "1e300", "oops"]) {
        await input.fill(bad);
        await press("Train");
        await field.locator("[role=alert]").filter({ hasText: /\S/ }).waitFor({ timeout: 30_000 });
        await ended(element, "idle");
      }
      await input.fill(good);
    }
    // Empty is what the example does where nothing is said.
    await press("Train");
    await ended(element, "over");
    assert.deepEqual(faults, [], name);
    await close();
  }
});

test("what is set is in the command and in PyTorch's line", async () => {
  const { close, element } = await training("cross_entropy");
  await fill(element, "label-smoothing", 0.1);
  await fill(element, "weight", "1,1,1,1,1,1,1,1,1,2");
  await fill(element, "reduction", "sum");
  const [command, torch] = await element.locator(".live-code code").allTextContents();
  assert.equal(command, "cargo run --example cross_entropy -- --dataset digits --reduction sum --label-smoothing 0.1 --weight 1,1,1,1,1,1,1,1,1,2");
  assert.equal(torch, 'torch.nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1, weight=torch.tensor([1,1,1,1,1,1,1,1,1,2], dtype=torch.float), ignore_index=-100)');
  await close();

  const weighted = await training("bce_with_logits");
  await fill(weighted.element, "pos-weight", 3);
  assert.equal(await weighted.element.locator(".live-code code").last().textContent(), "torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3], dtype=torch.float))");
  await weighted.close();

  // Where an example's default is not PyTorch's, and what has none there.
  for (const [name, expected] of [
    ["margin_ranking", "MarginRankingLoss(margin=1)"],
    ["triplet_margin_with_distance", "TripletMarginWithDistanceLoss(distance_function=distance, margin=0.5)"],
    ["linear_cross_entropy", "LinearCrossEntropyLoss(128, len(characters), bias=True, label_smoothing=0)"],
    ["adaptive_log_softmax", "AdaptiveLogSoftmaxWithLoss(64, len(words), cutoffs=[50,250])"],
  ]) {
    const { close, element } = await training(name);
    if (name === "linear_cross_entropy") await fill(element, "chunk", 8);
    assert.equal(await element.locator(".live-code code").last().textContent(), `torch.nn.${expected}`);
    await close();
  }
});
