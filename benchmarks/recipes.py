"""How quick the recipe commands are, beside importing the libraries they are built on.

    python benchmarks/recipes.py [--repeat 15] [--recipes 1000] [--json]

A whole process counts in CPU time, which other work on the machine disturbs least. Those that are compared take turns:
a ratio is the median of what the turns give, since a machine's speed changes from one minute to the next and a turn
takes a second; a time is the best of `--repeat` runs. They run from compiled bytecode, as installed packages do, which
lies in a temporary folder. One of many recipes is the best of twenty parts of them, with the mean of all beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from _processes import IMPORTS, ROOT, processes, ratio

from pdforge.recipe.load import load_recipes

VALIDATE = [sys.executable, "-m", "pdforge", "validate", "recipes/pd_star.yaml"]
PLAN = [sys.executable, "-m", "pdforge", "plan", "quickstart"]
PROCESS_BAR = 1.6
"""Of a whole validating process, times importing the libraries."""
RECIPE_BAR = 10.0
"""Milliseconds of one recipe among many in one process."""
PARTS = 20
"""Of the many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="runs of each process")
    parser.add_argument("--recipes", type=int, default=1000, help="recipes that are validated in one process")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, baseline, bar, ok}")
    options = parser.parse_args()
    imports, validate, plan = processes([IMPORTS, VALIDATE, PLAN], options.repeat)
    best, mean = one_of_many(options.recipes)
    rows = [
        row("validate pd_star, whole process", ratio(validate, imports), "× imports", 1.0, PROCESS_BAR),
        row("importing pydantic, ruamel.yaml, typer, rich", min(imports) * 1e3, "ms", None, None),
        row("validate pd_star", min(validate) * 1e3, "ms", min(imports) * 1e3, None),
        row("plan quickstart", min(plan) * 1e3, "ms", min(imports) * 1e3, None),
        row(f"one of {options.recipes} recipes in one process", best * 1e3, "ms", None, RECIPE_BAR),
        row("the same, mean of all", mean * 1e3, "ms", None, None),
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for each_row in rows:
        verdict = {True: "ok", False: "MISSED", None: ""}[each_row["ok"]]
        bar = "" if each_row["bar"] is None else f"bar {each_row['bar']:g}"
        print(f"{each_row['name']:<46} {each_row['value']:>9.2f} {each_row['unit']:<10} {bar:<9} {verdict}")


def row(name: str, value: float, unit: str, baseline: float | None, bar: float | None) -> dict[str, Any]:
    ok = None if bar is None else value <= bar
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "bar": bar, "ok": ok}


def one_of_many(count: int) -> tuple[float, float]:
    """CPU seconds of one recipe, in the best part of them and in all: files that differ in a seed are read, composed,
    validated and checked.
    """
    text = (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8").split("\nvariants:")[0] + "\n"
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"{number}.yaml" for number in range(count)]
        for number, file in enumerate(files):
            file.write_text(text.replace("train_tokens:", f"seed: {number}\n  train_tokens:"), encoding="utf-8")
        took = []
        for file in files:
            start = time.process_time()
            load_recipes(str(file))
            took.append(time.process_time() - start)
    length = max(count // PARTS, 1)
    return min(fmean(took[first : first + length]) for first in range(0, count - length + 1, length)), fmean(took)


if __name__ == "__main__":
    main()
