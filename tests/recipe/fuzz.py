"""Mutated recipes, from a seed: each must be a plan or typed findings, in bounded time and memory.

    python -m tests.recipe.fuzz COUNT [SEED]

prints one line of figures, or the first recipe that breaks the promise (kept in a file) and exits with 1.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdforge.cli.render.concise import concise
from pdforge.cli.render.github import github
from pdforge.cli.render.markdown import markdown
from pdforge.cli.render.sarif import sarif
from pdforge.diagnostics import LONGEST, Diagnostic
from pdforge.errors import PdforgeError, RecipeError
from pdforge.recipe.dump import dump_recipe
from pdforge.recipe.gallery import gallery_directory
from pdforge.recipe.load import load_recipes
from pdforge.recipe.reader import read_text
from pdforge.recipe.rules import TOPICS
from pdforge.recipe.tree import plain
from pdforge.review.diff import compare
from tests.recipe.sound import SOUND, load

LONGEST_SECONDS = 2.0
MOST_MEMORY = 500 << 20
"""Bytes above what the interpreter with pdforge takes."""

TEXTS = [SOUND, *(path.read_text(encoding="utf-8") for path in sorted(gallery_directory().rglob("*.yaml")))]
LINES = [line for text in TEXTS for line in text.splitlines()]
SIGNS = [
    *": {}[]#&*!|>%@`\"',-?\n\r\t\0\x07\x7f\x85\ufeff\u2028\ud800\U0010ffffτ",
    "<<: ",
    "---\n",
    "...\n",
    "&a ",
    "*a",
]
SIGNS += ["!!int ", "!!python/object/apply:os.system ", "0755", "~", "\\ud800", "%YAML 9.9\n---\n", "{{ x }}", "$(x)"]
WORDS = ["kind", "schedule", "wsd", "constant", "text", "qwen3", "auto", "global", "1e-4", "10%", "100B", "-1", ".nan"]
WORDS += ["-.inf", "yes", "NO", "0x1F", "1_0", "1:30", "2001-01-01"]
KEYS = sorted(
    {key for text in TEXTS for line in text.splitlines() if (key := line.strip().partition(":")[0]).isidentifier()}
)


def _scalar(chance: random.Random) -> Any:
    return chance.choice(
        [
            None,
            True,
            0,
            -1,
            1,
            chance.randrange(1 << chance.randrange(1, 70)),
            10 ** chance.randrange(1, 4000),
            chance.random(),
            float("nan"),
            float("inf"),
            1e308,
            5e-324,
            chance.choice(WORDS),
            chance.choice(SIGNS[:24]).join(chance.choices(WORDS, k=3)),
            "".join(chr(chance.randrange(1, 0xD800)) for _ in range(chance.randrange(12))),
            chance.choice(["a", "τ", "\n", '"', "\\", "{", "\x00"]) * chance.choice([64, 65, 5000, 100_000, 1_000_000]),
        ]
    )


def _value(chance: random.Random, depth: int = 0) -> Any:
    match chance.randrange(10):
        case 0 if depth < 4:
            return [_value(chance, depth + 1) for _ in range(chance.choice([0, 1, 2, 300]) if depth == 0 else 2)]
        case 1 if depth < 4:
            return {chance.choice(KEYS): _value(chance, depth + 1) for _ in range(chance.randrange(4))}
        case 2 if depth == 0:
            nested: Any = []
            for _ in range(chance.choice([30, 45, 500])):
                nested = [nested] if chance.random() < 0.5 else {"a": nested}
            return nested
        case _:
            return _scalar(chance)


def _values(chance: random.Random) -> str:
    """A sound recipe with values replaced, removed and added; JSON is YAML."""
    values = plain(read_text(chance.choice(TEXTS), "recipe.yaml").root)
    for _ in range(chance.randrange(1, 4)):
        node = values
        while node:
            key = chance.choice(sorted(node))
            if not isinstance(node[key], dict) or not node[key] or chance.random() < 0.2:
                break
            node = node[key]
        if not node:
            break
        match chance.randrange(4):
            case 0:
                del node[key]
            case 1:
                node[chance.choice([*KEYS, "variants", "extends", "sweep", "\x07"])] = _value(chance)
            case _:
                node[key] = _value(chance)
    text = json.dumps(values, ensure_ascii=chance.random() < 0.3)
    return text.replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")


def _text(chance: random.Random) -> str:
    """A sound recipe with signs put in, passages cut out, and lines doubled, moved or taken from another."""
    text = chance.choice(TEXTS)
    for _ in range(chance.randrange(1, 6)):
        if chance.random() < 0.5:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice([*SIGNS, ""]) + text[at + chance.choice([0, 0, 1, 5, 50]) :]
        else:
            lines = text.splitlines(keepends=True) or ["\n"]
            at = chance.randrange(len(lines))
            lines[at : at + chance.randrange(2)] = [chance.choice([*lines, *(f"{line}\n" for line in LINES)])]
            text = "".join(lines)
    return text


def _near(chance: random.Random) -> str:
    """A sound recipe with other numbers: most of these reach the rules and the plan."""
    lines = chance.choice(TEXTS).splitlines()
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(lines))
        parts = lines[at].replace("}", " }").replace(",", " ,").split(" ")
        numbers = [i for i, part in enumerate(parts) if part[:1].isdigit()]
        if numbers:
            other = [
                str(chance.choice([0, 1, 2, 3, 7, 8, 16, 250, 4096])),
                f"{chance.randrange(101)}%",
                "0.5",
                "1B",
                "12k",
            ]
            parts[chance.choice(numbers)] = chance.choice(other)
            lines[at] = " ".join(parts)
    return "\n".join(lines) + "\n"


def _bomb(chance: random.Random) -> str:
    """What tries to take a parser's time, memory or stack."""
    size = chance.choice([100, 10_000, 200_000, 1_000_000])
    head = chance.choice(["", "recipe: x\n", SOUND])
    billion = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    return head + chance.choice(
        [
            "x: " + "[" * size,
            "x: " + "{a: " * (size // 4),
            "- " * (size // 2),
            "x: [" + "1," * (size // 2) + "]",
            "".join(f"k{i}: {i}\n" for i in range(size // 12)),
            "variants: {" + ", ".join(f"v{i}: {{}}" for i in range(size // 10)) + "}",
            "sweep: {grid: {objective.temperature: [" + ", ".join(str(1 + i / 1000) for i in range(size // 8)) + "]}}",
            "sweep: {" + ", ".join(f"{key}: [1, 2, 3, 4, 5, 6, 7, 8]" for key in KEYS) + "}",
            "extends: [" + ", ".join(["quickstart"] * (size // 12)) + "]",
            "a0: &a0 [x]\n" + billion,
            "x: " + "9" * size,
            f"%YAML 1.{'1' * size}\n---\na: 1\n",
            'x: "' + "\\n" * (size // 2) + '"',
            "x: >\n" + "  y\n" * (size // 4),
            "? " * size,
            "&" * size,
            "#\n" * (size // 2),
            "".join(chr(chance.randrange(0x110000)) for _ in range(min(size, 5000))),
        ]
    )


KINDS: list[tuple[Callable[[random.Random], str], int]] = [(_values, 40), (_text, 30), (_near, 25), (_bomb, 5)]


def mutated(seed: int) -> str:
    """The recipe of that seed."""
    chance = random.Random(seed)
    make = chance.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    return make(chance)


def outcome(text: str, folder: Path) -> str:
    """Load, plan, print: `planned`, `unplanned` (a sound recipe that no plan fits), `findings` or `unreadable`.

    Raises:
        AssertionError: a finding without code, message or place; a recipe that does not survive being written out.
        Exception: whatever else escapes: that is what is looked for.
    """
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        loaded = load_recipes(str(file))
    except RecipeError as error:
        _check(error.diagnostics, text, file)
        return "findings"
    except PdforgeError:
        return "unreadable"
    for one in loaded[:2]:
        _check(one.warnings, text, file)
        assert load(dump_recipe(one.recipe))[0].recipe == one.recipe
    try:
        assert not compare(loaded[:2], loaded[:2]).changes_science
    except PdforgeError:
        return "unplanned"
    return "planned"


def _check(found: list[Diagnostic], text: str, file: Path) -> None:
    lines = text.count("\n") + text.count("\r") + text.count("\x85") + text.count("\u2028") + text.count("\u2029") + 1
    for diagnostic in found:
        assert diagnostic.code in TOPICS
        assert diagnostic.message.strip()
        assert max(len(diagnostic.message), len(diagnostic.help), len(diagnostic.field)) <= LONGEST
        assert 0 <= diagnostic.place.line <= lines or diagnostic.place.file != str(file)  # what it extends is longer
    for rendered in (concise(found), github(found), sarif(found), markdown(found, "summary")):
        rendered.encode("utf-8", "replace")


def main() -> int:
    """Run COUNT mutated recipes from SEED on."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    load(SOUND)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    outcomes: Counter[str] = Counter()
    slowest, slowest_seed = 0.0, seed
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(seed, seed + count):
            text = mutated(number)
            start = time.process_time()
            try:
                outcomes[outcome(text, folder)] += 1
            except BaseException:
                print(f"seed {number}: {text[:2000]!r}")
                raise
            took = time.process_time() - start
            if took > slowest:
                slowest, slowest_seed = took, number
            memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - base
            if took > LONGEST_SECONDS or memory > MOST_MEMORY:
                print(f"seed {number}: {took:.2f} s, {memory >> 20} MiB more memory: {text[:300]!r}")
                return 1
    told = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
    print(f"{count} recipes: {told}; slowest {slowest:.2f} s (seed {slowest_seed}), {memory >> 20} MiB more memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
