"""Draws how much faster than PyTorch each loss is, as an SVG in the look of the other pictures: on white, in sans-serif."""

import math
from typing import NamedTuple

WIDTH, LEFT, RIGHT = 800, 310, 770
LINE, AIR = 5, 8
TEXT, AXIS, BEHIND = "#333333", "#999999", "#D55E00"
# From few elements to many.
SHADES = {2_000: "#A3D3F2", 100_000: "#56B4E9", 1_000_000: "#0072B2", math.inf: "#002F5A"}


class Point(NamedTuple):
    size: str
    ratio: float
    # The ratio if the loss itself took no time.
    most: float
    is_behind: bool

    @property
    def elements(self):
        return math.prod(int(dim) for dim in self.size.split("x"))

    @property
    def colour(self):
        return BEHIND if self.is_behind else next(shade for most, shade in SHADES.items() if self.elements <= most)


def text(x, y, content, size=12, anchor="start", weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" dy="0.35em" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{TEXT}">{content}</text>'
    )


def line(x1, y1, x2, y2, colour, width=1):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def dot(x, y, colour, title=""):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}">{title}</circle>'


def steps(low, high):
    """1, 2, 5, 10 and so on, from the last that is not above `low` to the first that is not below `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    start = max(value for value in values if value <= low)
    end = min(value for value in values if value >= high)
    return [value for value in values if start <= value <= end]


def speed(losses):
    """A row for each option of each loss, `{loss: {option: [Point]}}`: its sizes on a line each, the smallest on top."""
    points = [point for options in losses.values() for row in options.values() for point in row]
    ticks = steps(min(1, *(min(p.ratio, p.most) for p in points)), max(1, *(max(p.ratio, p.most) for p in points)))
    first, last = math.log(ticks[0]), math.log(ticks[-1])
    # Where there is no room for 2× and 5×, their lines alone stand.
    has_room = last - first < math.log(2000)
    top = y = 122
    body = []

    def across(ratio):
        return LEFT + (RIGHT - LEFT) * (math.log(ratio) - first) / (last - first)

    for number, (loss, options) in enumerate(losses.items()):
        start = y
        for option, row in options.items():
            row = sorted(row, key=lambda point: point.elements)
            height = max(18, LINE * len(row) + AIR)
            if y == start:
                body.append(text(14, y + height / 2, loss))
            body.append(text(220, y + height / 2, option))
            for i, point in enumerate(row):
                at = y + height / 2 + LINE * (i - (len(row) - 1) / 2)
                x, most = across(point.ratio), across(point.most)
                name = f"{loss} {option} {point.size}: {point.ratio:.2g}×, at most {point.most:.2g}×"
                body.append(line(x, at, most, at, point.colour, 0.7))
                body.append(line(most, at - 2.5, most, at + 2.5, point.colour, 1.4))
                body.append(dot(x, at, point.colour, f"<title>{' '.join(name.split())}</title>"))
            y += height
        if number % 2 == 0:
            body.insert(0, f'<rect x="6" y="{start}" width="{WIDTH - 12}" height="{y - start}" fill="#F3F5F7"/>')

    grid = []
    for tick in ticks:
        x = across(tick)
        grid.append(line(x, top, x, y, TEXT if tick == 1 else "#D9DDE1", 1.5 if tick == 1 else 1))
        if has_room or math.log10(tick).is_integer():
            for end in (top - 10, y + 11):
                grid.append(text(x, end, f"{tick:,g}×", 11, "middle", "bold" if tick == 1 else "normal"))
    bands = sum(element.startswith("<rect") for element in body)
    height = y + 26
    return "\n".join(
        [
            f'<svg width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
            'xmlns="http://www.w3.org/2000/svg">',
            f'<rect width="{WIDTH}" height="{height}" fill="#FFFFFF"/>',
            text(WIDTH / 2, 22, "How many times as fast as PyTorch: forward and backward", 14.5, "middle"),
            *legend(),
            *body[:bands],
            *grid,
            *body[bands:],
            "</svg>\n",
        ]
    )


def legend():
    names = ["to 2,000 elements", "to 100,000", "to a million", "more"]
    for x, name, colour in zip((24, 164, 264, 374), names, SHADES.values()):
        yield dot(x, 52, colour) + text(x + 8, 52, name)
    yield dot(444, 52, BEHIND) + text(452, 52, "behind PyTorch, and above 1.3 times the floor")
    yield dot(24, 76, AXIS) + line(24, 76, 46, 76, AXIS, 0.7) + line(46, 73, 46, 79, AXIS, 1.4)
    yield text(56, 76, "dot: the loss; mark: the floor, a loss that takes no time, since candle adds each gradient to zeros")
