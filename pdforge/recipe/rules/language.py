"""What the codes of the language itself mean: they are found while a recipe is read, before there is one to check."""

from __future__ import annotations

from pdforge.diagnostics import Severity
from pdforge.recipe.rules.registry import Topic

_TEXTS = {
    "PD001": (
        "not the YAML of a recipe",
        "Recipes are YAML 1.2 in UTF-8, one document a file, at most 256 kB and 40 levels deep. Anchors, aliases, "
        "tags and merge keys are left out: they make a value hard to trace to its line, and `extends` and "
        "`variants` share parts by name. Numbers with leading zeros are refused, since YAML 1.1 reads them as "
        "octal.",
    ),
    "PD002": (
        "a key is written twice",
        "Most YAML readers silently keep the last of two equal keys, so that an edit to the first has no effect. "
        "Keep one of them.",
    ),
    "PD003": (
        "unknown key",
        "A key that nothing reads is an error, never ignored: a misspelt `top_p` would otherwise train for weeks "
        "on the default. The keys of each part are those of its kind; `pdforge show` prints them all with their "
        "defaults.",
    ),
    "PD004": (
        "missing field",
        "The field has no default because no value is right for everybody.",
    ),
    "PD005": (
        "value not accepted",
        "The value has the wrong type or is out of range. Counts may be written 100B, 12.5M, 500k or 8_388_608, "
        "fractions 0.1 or 10%. Only `true` and `false` are truth values; yes, no, on and off are text in YAML "
        "1.2.",
    ),
    "PD006": (
        "unknown kind",
        "`kind`, `schedule` or `mode` says which of several forms a mapping has, and so which keys it may hold.",
    ),
    "PD007": (
        "extends cannot be followed",
        "`extends` takes a path relative to the file, a gallery name, or a list of them; the files are merged in "
        "order, then the file itself. Mappings merge, everything else replaces, and a mapping that names another "
        "kind replaces the old one whole.",
    ),
    "PD008": (
        "variants are not well-formed",
        "`variants` maps names to partial recipes; each is laid over the rest of the file and becomes a run of "
        "its own. A name becomes part of a directory's name. An empty variant is the recipe as it stands.",
    ),
    "PD009": (
        "sweep is not well-formed",
        "`sweep` makes runs out of one recipe: `grid` takes every combination of its fields' values, `paired` lists "
        "sets of values that go together, `seeds` repeats everything with other seeds; together they multiply, and so "
        "do variants. A run is named after its values, or by the `name` of its set; at most 250 runs.",
    ),
    "PD010": (
        "ignore comment is not well-formed",
        "A warning is ignored by `# pdforge: ignore[CODE] because REASON` at the end of the line that it points "
        "at. The reason is for the next reader; errors cannot be ignored.",
    ),
    "PD011": (
        "ignore comment without anything to ignore",
        "The line's warning is gone, or was never on this line: the comment would hide the next one of its kind. It is "
        "reported when all recipes of the file are checked as they stand, without --variant and --set.",
    ),
}

_WARNINGS = {"PD011"}

LANGUAGE = {
    code: Topic(code, Severity.WARNING if code in _WARNINGS else Severity.ERROR, title, text)
    for code, (title, text) in _TEXTS.items()
}
"""Topics of the language by code."""
