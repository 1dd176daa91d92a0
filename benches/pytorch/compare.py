"""Times the losses and the training step here and in PyTorch, and writes the tables between README.md's speed markers.

Both sides take turns for some rounds, so that a slow moment of the machine meets both; a figure is the median over the
rounds. Run by `make bench-vs-pytorch`. Needs: pip install torch
"""

import json
import math
import pathlib
import platform
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 3
SIZES = ("10x10", "64x10", "512x1000", "4096x1000")
BATCHES = (10, 64, 512)


def lines_of(*command):
    print("running", *command, file=sys.stderr, flush=True)
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def ours():
    figures = {
        (line["loss"], line["size"]): line["us"]
        for line in lines_of("cargo", "bench", "--quiet", "--profile", "dev", "--bench", "losses")
    }
    lines_of("cargo", "bench", "--quiet", "--profile", "dev", "--bench", "training", "--", "^step/(10|64|512)$")
    for batch in BATCHES:
        estimates = ROOT / "target" / "criterion" / "step" / str(batch) / "new" / "estimates.json"
        figures["step", batch] = json.loads(estimates.read_text())["median"]["point_estimate"] / 1000
    return figures


def pytorch():
    versions, *lines = lines_of(sys.executable, "benches/pytorch/measure.py")
    figures = {}
    for line in lines:
        if line.get("step") == "tutorial":
            figures["step", "tutorial"] = line["us"]
        elif "step" in line:
            figures["step", line["batch"]] = line["us"]
        else:
            figures[line["loss"], line["size"]] = line["us"]
    return versions, figures


def medians(rounds):
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


def processor():
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def us(value):
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def faster(ours, theirs):
    return f"{theirs / ours:.1f}×"


def tables(ours, theirs, versions):
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    yield f"{processor()}, {versions['threads']} cores; PyTorch {versions['torch']}, Rust {rust}, dev profile. Medians in µs."
    yield ""
    yield "| training step of `cross_entropy`, batch | here | PyTorch, in memory, fused Adam | |"
    yield "|---:|---:|---:|---:|"
    for batch in BATCHES:
        a, b = ours["step", batch], theirs["step", batch]
        yield f"| {batch} | {us(a)} | {us(b)} | {faster(a, b)} |"
    a, b = ours["step", 10], theirs["step", "tutorial"]
    yield f"| 10, against the tutorial's own loop | {us(a)} | {us(b)} | {faster(a, b)} |"
    yield ""
    yield "| loss, forward and backward | " + " | ".join(size.replace("x", "×") for size in SIZES) + " |"
    yield "|---|" + "---:|" * len(SIZES)
    names = [name for name, size in theirs if size == SIZES[0]]
    for name in names:
        cells = (f"{us(ours[name, size])} / {us(theirs[name, size])} = {faster(ours[name, size], theirs[name, size])}" for size in SIZES)
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    ratios = [theirs[name, size] / ours[name, size] for name in names for size in SIZES]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    yield ""
    yield (
        f"Each cell: here / PyTorch. Geometric mean {mean:.1f}×; at or ahead of PyTorch in "
        f"{sum(ratio >= 1 for ratio in ratios)} of {len(ratios)} cells."
    )


def main():
    rounds = [(ours(), *pytorch()) for _ in range(ROUNDS)]
    text = "\n".join(tables(medians([a for a, _, _ in rounds]), medians([c for _, _, c in rounds]), rounds[0][1]))
    print(text)
    readme = ROOT / "README.md"
    parts = re.split(r"(<!-- speed -->\n)(?:.*?)(<!-- end of speed -->)", readme.read_text(), flags=re.S)
    if len(parts) != 4:
        sys.exit("README.md has no speed markers")
    before, start, end, after = parts
    readme.write_text(f"{before}{start}\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    main()
