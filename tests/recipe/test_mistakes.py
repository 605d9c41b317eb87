"""Planted mistakes: each is found with the right code, at the right place, in words that name the value."""

from __future__ import annotations

import pytest

from tests.recipe.sound import SOUND, findings, load, place_of, spoil

STUDENT = "student:\n  architecture: {hidden: 128, ffn: 352, layers: 4, heads: 4, kv_heads: 2}"
TRAINING = "training:\n  tokens: 600k\n  batch: {global: 16, micro: 8}"

# What stands there, what is planted (¦ marks where the finding must point), code, part of the message, of the help.
MISTAKES = {
    "top_p": ("top_p: 0.95", "top_p: ¦1.2", "PD005", "top_p is 1.2; it must be at most 1", "mass"),
    "top_p zero": ("top_p: 0.95", "top_p: ¦0", "PD005", "top_p is 0; it must be more than 0", ""),
    "top_k beyond a byte": ("top_k: 50", "top_k: ¦300", "PD005", "top_k is 300; it must be at most 255", ""),
    "not finite": ("temperature: 1.0", "temperature: ¦.inf", "PD005", "temperature is inf; it must be", ""),
    "not a number": ("temperature: 1.0", "temperature: ¦.nan", "PD005", "temperature is nan; it must be", ""),
    "word for number": ("temperature: 1.0", "temperature: ¦warm", "PD005", "'warm'; it must be a number", ""),
    "truth for number": ("temperature: 1.0", "temperature: ¦true", "PD005", "is true; it must be a number", ""),
    "truth for count": ("layers: 4", "layers: ¦true", "PD005", "layers is true; it must be a whole number", ""),
    "no count": ("train_tokens: 1.5M", "train_tokens: ¦1.5 apples", "PD005", "'1.5 apples'; it must be a count", ""),
    "half a token": ("train_tokens: 1.5M", "train_tokens: ¦1.5", "PD005", "is 1.5; it must be a whole number", ""),
    "no such count": ("train_tokens: 1.5M", "train_tokens: ¦99999999999T", "PD005", "it must be at most", ""),
    "negative": ("layers: 4", "layers: ¦-4", "PD005", "layers is -4; it must be more than 0", ""),
    "null": ("train_tokens: 1.5M", "train_tokens: ¦null", "PD005", "train_tokens is null; it must be a whole", ""),
    "nothing": ("train_tokens: 1.5M", "¦train_tokens:", "PD005", "train_tokens is null; it must be a whole", ""),
    "number for kind": ("kind: pretrain\n", "kind: ¦5\n", "PD006", "kind of teacher.model is 5", "huggingface"),
    "percentage": ("warmup: 10%", "warmup: ¦110%", "PD005", "warmup is '110%'; it must be at most 1", ""),
    "bad percentage": ("warmup: 10%", "warmup: ¦x%", "PD005", "'x%'; it must be a fraction such as 0.1", ""),
    "YAML 1.1 yes": (
        "kv_heads: 2}\nobj",
        "kv_heads: 2, tied_embeddings: ¦yes}\nobj",
        "PD005",
        "true or false",
        "write true",
    ),
    "one for true": ("kv_heads: 2}\nobj", "kv_heads: 2, tied_embeddings: ¦1}\nobj", "PD005", "true or false", ""),
    "number for text": ("description: A sound recipe", "description: ¦2024", "PD005", "must be text", "quote it"),
    "name": ("recipe: small", "recipe: ¦Bad Name", "PD005", "'Bad Name'; it must be a name", ""),
    "enum": ("tokens: 600k\n", "tokens: 600k\n  precision: ¦bfloat\n", "PD005", "'bfloat'", "did you mean bfloat16?"),
    "enum or count": (
        "tokens: 600k\n",
        "tokens: 600k\n  parallelism: {data_shard: ¦atuo}\n",
        "PD005",
        "it must be 'auto' or a count",
        "did you mean auto?",
    ),
    "mapping for number": (
        "train_tokens: 1.5M",
        "¦train_tokens: {a: 1}",
        "PD005",
        "is a mapping; it must be a whole number",
        "",
    ),
    "number for mapping": ("model:\n", "logits: ¦5\n  model:\n", "PD005", "logits is 5; it must be a mapping with", ""),
    "word for kind": ("temperature: 1.0", "loss: ¦kld\n  temperature: 1.0", "PD005", "loss is 'kld'", "{kind: kld}"),
    "word for schedule": (
        "alpha: {schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}",
        "alpha: ¦cosine",
        "PD005",
        "alpha is 'cosine'",
        "{schedule: cosine}",
    ),
    "α too large": (
        "alpha: {schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}",
        "alpha: ¦1.5",
        "PD005",
        "it must be at most 1",
        "",
    ),
    "list for mapping": (
        "alpha: {schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}",
        "¦alpha: [1]",
        "PD005",
        "alpha is a list",
        "",
    ),
    "short list": ("tokens: 600k\n", "tokens: 600k\n  optimizer: {¦betas: [0.9]}\n", "PD004", "betas has 1 of its", ""),
    "in a list": (
        "tokens: 600k\n",
        "tokens: 600k\n  optimizer: {betas: [0.9, ¦1.5]}\n",
        "PD005",
        "is 1.5; it must be less than 1",
        "",
    ),
    "unknown key": (
        "top_p: 0.95",
        "¦topp: 0.95",
        "PD003",
        "teacher.truncation has no key 'topp'",
        "did you mean top_p?",
    ),
    "far-off key": ("top_p: 0.95", "¦zzz: 0.95", "PD003", "no key 'zzz'", "its keys are kind, top_p, top_k"),
    "alias's own name": (
        "tokens: 600k\n  batch: {",
        "tokens: 600k\n  batch: {¦globl: 1, ",
        "PD003",
        "'globl'",
        "global?",
    ),
    "key at the top": (
        "student:\n",
        "¦finetun: {}\nstudent:\n",
        "PD003",
        "the recipe has no key 'finetun'",
        "finetune?",
    ),
    "composition misspelt": ("student:\n", "¦varients: {}\nstudent:\n", "PD003", "no key 'varients'", "mean variants?"),
    "kind of temperature": (
        "temperature: 1.0",
        "temperature: {kind: ¦normdk}",
        "PD006",
        "kind of objective.temperature is 'normdk'",
        "did you mean normkd?",
    ),
    "no kind of temperature": (
        "temperature: 1.0",
        "¦temperature: {norm: 1}",
        "PD006",
        "temperature lacks kind",
        "wttm",
    ),
    "in an adaptive temperature": (
        "temperature: 1.0",
        "temperature: {kind: normkd, norm: ¦0}",
        "PD005",
        "norm is 0; it must be more than 0",
        "standard deviation",
    ),
    "kind of a source": (
        "{kind: python-stdlib}",
        "{kind: mixture, sources: [{corpus: {kind: python-stdlib}}, {corpus: {kind: ¦txt, path: x}}]}",
        "PD006",
        "kind of data.corpus.sources.1.corpus is 'txt'",
        "did you mean text?",
    ),
    "key of a source": (
        "{kind: python-stdlib}",
        "{kind: mixture, sources: [{corpus: {kind: parquet, path: x, ¦coulmn: y}}]}",
        "PD003",
        "data.corpus.sources.0.corpus of kind 'parquet' has no key 'coulmn'",
        "text",
    ),
    "a list of sources": (
        "corpus: {kind: python-stdlib}",
        "¦corpus: [{kind: python-stdlib}]",
        "PD005",
        "corpus is a list; it must be a mapping with kind",
        "Where the text comes from",
    ),
    "no sources": (
        "{kind: python-stdlib}",
        "{kind: mixture, ¦sources: []}",
        "PD005",
        "sources is a list; it must be a list of at least 1",
        "",
    ),
    "size": ("{kind: python-stdlib}", "{kind: python-stdlib, bytes: ¦2GIB}", "PD005", "'2GIB'; it must be a size", ""),
    "duration": (
        "checkpoint: {every: 50, keep: 2}",
        "checkpoint: {every: 50, interval: ¦30 minutes}",
        "PD005",
        "'30 minutes'; it must be a duration such as 30m",
        "Longest time",
    ),
    "mode": (
        "model:\n",
        "logits: {mode: ¦onlin, from_step: 5}\n  model:\n",
        "PD006",
        "is 'onlin'",
        "did you mean online?",
    ),
    "key of a mode": (
        "model:\n",
        "logits: {¦from_step: 5}\n  model:\n",
        "PD003",
        "no key 'from_step'",
        "shard_sequences",
    ),
    "truncation's default kind": (
        "top_p: 0.95",
        "¦draws: 5",
        "PD003",
        "teacher.truncation has no key 'draws'",
        "top_p",
    ),
    "shots": (
        "student:\n",
        "evaluate: {tasks: [{task: mmlu, shots: ¦-1}]}\nstudent:\n",
        "PD005",
        "shots is -1; it must be at least 0",
        "",
    ),
    "expectation without a source": (
        "student:\n",
        "expect: [¦{values: {heldout_loss: 2.5}}]\nstudent:\n",
        "PD004",
        "lacks source",
        "Who says so",
    ),
    "a tag that is a key": (
        "{kind: python-stdlib}",
        "{kind: text, path: x, ¦text: y}",
        "PD003",
        "data.corpus of kind 'text' has no key 'text'",
        "kind, path",
    ),
    "missing": (
        STUDENT,
        "student:\n  ¦architecture: {ffn: 352, layers: 4, heads: 4}",
        "PD004",
        "lacks hidden",
        "Width",
    ),
    "missing in a kind": ("{kind: python-stdlib}", "{kind: jsonl}", "PD004", "data.corpus lacks path", "file or glob"),
    "missing at the top": ("recipe: small\n", "", "PD004", "the recipe lacks recipe", ""),
    "kind": ("kind: pretrain\n", "kind: ¦pretrian\n", "PD006", "kind of teacher.model is 'pretrian'", "mean pretrain?"),
    "schedule": ("schedule: wsd", "schedule: ¦wds", "PD006", "schedule of objective.alpha is 'wds'", "linear_inc"),
    "no kind": ("{kind: python-stdlib}", "{bytes: 5M}", "PD006", "data.corpus lacks kind", "jsonl"),
    "no schedule": ("{schedule: wsd, peak: 0.9,", "{peak: 0.9,", "PD006", "objective.alpha lacks schedule", "wsd"),
    "repeated key": ("temperature: 1.0", "temperature: 1.0\n  ¦temperature: 2", "PD002", "written twice", "line 20"),
    "tab": ("  temperature: 1.0", "¦\ttemperature: 1.0", "PD001", "a tab", ""),
    "octal": ("layers: 4", "layers: ¦0755", "PD001", "0755 starts with 0", "octal"),
    "anchor": ("temperature: 1.0", "temperature: ¦&t 1.0", "PD001", "no anchors", "extends"),
    "alias": ("temperature: 1.0", "temperature: ¦*t", "PD001", "no anchors and aliases", "extends"),
    "merge key": ("temperature: 1.0", "¦<<: {temperature: 1.0}", "PD001", "no merge keys", "extends"),
    "tag": ("temperature: 1.0", "temperature: ¦!!python/name:os.system 1", "PD001", "no tags", ""),
    "key that is a list": ("temperature: 1.0", "? ¦[a]\n  : 1", "PD001", "a key must be text", ""),
    "second document": ("training:\n  tokens", "¦---\ntraining:\n  tokens", "PD001", "a second document", ""),
    "colon in text": ("A sound recipe", "A sound¦: recipe", "PD001", "must be quoted", ""),
    "control character": ("A sound recipe", "A sound¦\x07 recipe", "PD001", "U+0007", ""),
    "half a character": ("A sound recipe", '¦"\\ud800"', "PD001", "surrogate", ""),
    "extends a number": ("recipe: small", "recipe: small\nextends: ¦5", "PD007", "must be a path", ""),
    "extends nothing": ("recipe: small", "recipe: small\nextends: ¦nowhere.yaml", "PD007", "'nowhere.yaml'", ""),
    "variants a list": ("recipe: small", "recipe: small\n¦variants: [a]", "PD008", "must be a mapping", ""),
    "variant's name": ("recipe: small", "recipe: small\nvariants: {¦A b: {}}", "PD008", "'A b'; it must be a name", ""),
    "variant a number": (
        "recipe: small",
        "recipe: small\nvariants: {a: ¦5}",
        "PD008",
        "variant a must be a mapping",
        "",
    ),
    "variant extends": (
        "recipe: small",
        "recipe: small\nvariants: {a: {¦extends: b}}",
        "PD008",
        "cannot hold extends",
        "",
    ),
}


def test_the_sound_recipe_has_no_findings() -> None:
    assert findings(SOUND) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found_at_its_place(name: str) -> None:
    before, planted, code, message, helping = MISTAKES[name]
    marked = spoil(before, planted)
    text = marked.replace("¦", "")
    found = findings(text)
    assert len(found) == 1, found
    (diagnostic,) = found
    assert diagnostic.code == code
    assert message in diagnostic.message
    assert helping in diagnostic.help
    assert diagnostic.place.file == "recipe.yaml"
    if "¦" in marked:
        assert (diagnostic.place.line, diagnostic.place.column) == place_of("¦", marked)


def test_all_mistakes_are_found_together_in_order_of_place() -> None:
    text = spoil("top_p: 0.95", "top_p: 2", spoil("layers: 4", "layers: 0", spoil("recipe: small", "recipe: X")))
    found = findings(text)
    assert [d.field for d in found] == ["recipe", "teacher.truncation.top_p", "student.architecture.layers"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "5", "[]", "null", "--- \n"])
def test_what_is_no_mapping_is_no_recipe(text: str) -> None:
    assert [d.code for d in findings(text)] == ["PD005"]


def test_nesting_has_an_end() -> None:
    (found,) = findings("a: " + "[" * 300)
    assert (found.code, found.place.line, found.place.column) == ("PD001", 1, 3 + 40)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("temperature: 1.0", "temperature: 1e0"),
        ("temperature: 1.0", "temperature: '1e0'"),
        ("train_tokens: 1.5M", "train_tokens: 1_500_000"),
        ("train_tokens: 1.5M", "train_tokens: 1.5e6"),
        ("train_tokens: 1.5M", "train_tokens: 1500k"),
        ("warmup: 10%", "warmup: 1e-1"),
        ("layers: 4", "layers: 0x4"),
    ],
)
def test_a_number_may_be_written_in_several_ways(before: str, after: str) -> None:
    assert load(spoil(before, after))[0].recipe == load(SOUND)[0].recipe
