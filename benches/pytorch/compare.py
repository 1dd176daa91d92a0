"""Times the losses and the training step here and in PyTorch, and writes the part of README.md between its speed markers.

First the losses and gradients of both sides are compared. Then both take turns for some rounds, so that a slow moment of
the machine meets both; a figure is the median over the rounds. Run by `make bench-vs-pytorch`. With the name of a loss, as
benches/losses.rs takes it, only the table of its figures is printed. Needs: pip install torch
"""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
from typing import NamedTuple

import cells
import picture

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
BATCHES = (10, 64, 512)
# How far above the floor is still as good as can be.
NEAR = 1.3


class Row(NamedTuple):
    cell: cells.Cell
    here: float
    mimalloc: float
    floor: float
    pytorch: float

    @property
    def ratio(self):
        return self.pytorch / self.here

    @property
    def is_good(self):
        return self.here <= max(self.pytorch, NEAR * self.floor)


def lines_of(*command):
    print("running", *command, file=sys.stderr, flush=True)
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def bench(name, *options):
    return lines_of("cargo", "bench", "--quiet", "-p", "candle-losses-benches", "--bench", name, "--", *options)


def measure(*options):
    return lines_of(sys.executable, "benches/pytorch/measure.py", *options)


def by_cell(lines):
    return {cells.Cell(*(line[key] for key in cells.Cell._fields)): line for line in lines if "loss" in line}


def check_values(options):
    """Ends the program if a loss, or the sum of its slopes, is another here than in PyTorch."""
    ours, theirs = by_cell(bench("losses", "--values", *options)), by_cell(measure("--values", *options))
    far = [
        f"{cell.name}: {key} is {ours[cell][key]:.6g} here and {line[key]:.6g} in PyTorch"
        for cell, line in theirs.items()
        for key in ("value", "slopes")
        if not math.isclose(ours[cell][key], line[key], rel_tol=2e-2 if cell.dtype in ("f16", "bf16") else 1e-3)
    ]
    if far:
        sys.exit("\n".join(far))


def step_times():
    bench("training", "--quiet", "--warm-up-time", "1", "--measurement-time", "2", "^step/(10|64|512)$")
    times = {}
    for batch in BATCHES:
        estimates = TARGET / "criterion" / "step" / str(batch) / "new" / "estimates.json"
        times[batch] = json.loads(estimates.read_text())["median"]["point_estimate"] / 1000
    return times


def one_round(options, has_steps):
    """Figures by what they are of: a cell and a side, or a batch and a side."""
    system, mimalloc = by_cell(bench("losses", *options)), by_cell(bench("losses_mimalloc", *options))
    steps = step_times() if has_steps else {}
    versions, *lines = measure(*options)
    figures = {(batch, "here"): us for batch, us in steps.items()}
    for line in lines:
        if "step" in line:
            figures["tutorial" if line["step"] == "tutorial" else line["batch"], "pytorch"] = line["us"]
    for cell, line in by_cell(lines).items():
        figures |= {
            (cell, "here"): system[cell]["us"],
            (cell, "mimalloc"): mimalloc[cell]["us"],
            (cell, "floor"): system[cell]["floor_us"],
            (cell, "pytorch"): line["us"],
        }
    return figures, versions


def processor():
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def us(value):
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def times(ratio):
    return f"{ratio:.1f}×" if ratio >= 1 else f"{ratio:.2f}×"


def table(rows):
    heads = ("here", "mimalloc", "floor", "PyTorch", "PyTorch/here", "here/floor")
    yield f"{'medians in µs':58}" + "".join(f"{head:>13}" for head in heads)
    for row in rows:
        figures = (*map(us, row[1:]), times(row.ratio), times(row.here / row.floor))
        yield f"{row.cell.name:58}" + "".join(f"{figure:>13}" for figure in figures) + ("" if row.is_good else "  behind")


def means(rows):
    """As many times as fast as PyTorch, with the system's allocator and with mimalloc."""
    ratios = ([row.ratio for row in rows], [row.pytorch / row.mimalloc for row in rows])
    return " | ".join(times(statistics.geometric_mean(column)) for column in ratios)


def section(sections, figures, versions, rounds):
    """What stands between the markers, line by line."""
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    yield (
        f"{processor()}, {versions['threads']} cores; PyTorch {versions['torch']}; Rust {rust}, release profile. Medians "
        f"over {rounds} round{'s' * (rounds > 1)}, in µs."
    )
    yield ""
    yield "| training step of `cross_entropy`, batch | here, with the examples' mimalloc | PyTorch, in memory, fused Adam | |"
    yield "|---:|---:|---:|---:|"
    for batch in BATCHES:
        a, b = figures[batch, "here"], figures[batch, "pytorch"]
        yield f"| {batch} | {us(a)} | {us(b)} | {times(b / a)} |"
    a, b = figures[10, "here"], figures["tutorial", "pytorch"]
    yield f"| 10, against the tutorial's own loop | {us(a)} | {us(b)} | {times(b / a)} |"
    yield ""
    yield "| times as fast as PyTorch, forward and backward, geometric mean | with the system's allocator | with mimalloc |"
    yield "|---|---:|---:|"
    for name, rows in sections.items():
        yield f"| {name}, {len(rows)} cells | {means(rows)} |"
    yield ""
    rows = [row for rows in sections.values() for row in rows]
    behind = [row for row in rows if not row.is_good]
    yield (
        f"{len(rows) - len(behind)} of the {len(rows)} cells are at or ahead of PyTorch, or within {NEAR} times the floor. "
        "That is what a loss would take that has nothing to do, because candle starts each gradient from zeros and adds "
        "to it. Each cell, with the system's allocator:"
    )
    yield ""
    yield '[<img src="assets/speed.svg" width="800" alt="How many times as fast as PyTorch each loss is">](assets/speed.svg)'
    if behind:
        yield ""
        yield "| what is behind | here | floor | PyTorch | PyTorch / here | here / floor |"
        yield "|---|---:|---:|---:|---:|---:|"
        for row in behind:
            cell, over = row.cell, times(row.here / row.floor)
            name = " ".join([f"`{cell.loss}`", *option(cell).split(), cell.size.replace("x", "×")])
            yield f"| {name} | {us(row.here)} | {us(row.floor)} | {us(row.pytorch)} | {times(row.ratio)} | {over} |"


def option(cell):
    return " ".join(word for word in (cell.case, cell.dtype) if word not in ("plain", "f32"))


def draw(rows):
    losses = {}
    for row in rows:
        point = picture.Point(row.cell.size, row.ratio, row.pytorch / row.floor, not row.is_good)
        losses.setdefault(row.cell.loss, {}).setdefault(option(row.cell), []).append(point)
    return picture.speed(losses)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--all", action="store_true", help="the sizes in brackets of benches/cells.txt as well")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each cell, side and round")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    parts = re.split(r"(<!-- speed -->\n)(?:.*?)(<!-- end of speed -->)", readme.read_text(), flags=re.S)
    if len(parts) != 4:
        sys.exit("README.md has no speed markers")

    options = ["--all"] * args.all + [args.name] * bool(args.name)
    check_values(options)
    options += ["--seconds", str(args.seconds)]
    rounds = [one_round(options, not args.name) for _ in range(args.rounds)]
    versions = rounds[0][1]
    figures = {key: statistics.median(figures[key] for figures, _ in rounds) for key in rounds[0][0]}
    sides = ("here", "mimalloc", "floor", "pytorch")
    sections = {
        name: [Row(cell, *(figures[cell, side] for side in sides)) for cell in section]
        for name, section in cells.read(args.all, args.name).items()
    }
    rows = [row for rows in sections.values() for row in rows]
    print("\n".join(table(rows)))
    if not args.name:
        before, start, end, after = parts
        text = "\n".join(section(sections, figures, versions, args.rounds))
        print(f"\n{text}")
        readme.write_text(f"{before}{start}\n{text}\n\n{end}{after}")
        (ROOT / "assets" / "speed.svg").write_text(draw(rows))


if __name__ == "__main__":
    main()
