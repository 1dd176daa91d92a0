"""What is timed: the lines of benches/cells.txt."""

import pathlib
from typing import NamedTuple


class Cell(NamedTuple):
    loss: str
    case: str
    size: str
    dtype: str

    @property
    def name(self):
        return "/".join(self)

    @property
    def dims(self):
        return [int(dim) for dim in self.size.split("x")]


def read(everything=False, name=""):
    """The cells by their section, each with those in brackets if `everything` is wanted, and only what is named."""
    sections = {}
    for line in (pathlib.Path(__file__).parents[1] / "cells.txt").read_text().splitlines():
        if line.startswith("["):
            cells = sections[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            loss, case, dtype, *sizes = line.split()
            cells += (Cell(loss, case, size.strip("()"), dtype) for size in sizes if everything or size[0] != "(")
    wanted = name.rstrip("/") + "/" if name else ""
    return {section: [cell for cell in cells if f"{cell.name}/".startswith(wanted)] for section, cells in sections.items()}
