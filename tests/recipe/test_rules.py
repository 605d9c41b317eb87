"""Every rule finds what it is for, and nothing in sound recipes."""

from __future__ import annotations

import pytest

from pdforge.diagnostics import Severity
from pdforge.recipe.load import gallery_names, load_recipes
from pdforge.recipe.rules import LANGUAGE, PLANNING, RULES, TOPICS
from tests.recipe.sound import SOUND, findings, place_of, spoil

HUB = "{kind: huggingface, path: some/model, revision: abc}"
OWN = """model:
    kind: pretrain
    architecture: {hidden: 256, ffn: 704, layers: 6, heads: 4, kv_heads: 2}
    training:
      batch: {global: 16, micro: 8}
      checkpoint: {every: 50}"""
ALPHA = "{schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}"
STUDENT = "{hidden: 128, ffn: 352, layers: 4, heads: 4, kv_heads: 2}"
TOKENIZER = "{kind: trained, vocabulary: 2048}"
END = "tokens: 600k\n"
EACH = (
    "model: {kind: pretrain, architecture: {hidden: 128, ffn: 352, layers: 6, heads: 4}, "
    "training: {batch: {global: 16, micro: 8}, checkpoint: {every: 50}}}"
)
"""One of several teachers."""

# (code, what the finding's message must say, and (what stands there, what is planted)…: ¦ marks the finding's place)
BROKEN = {
    "heads": ("PD101", "3 heads do not divide hidden 128", (STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: ¦3}")),
    "teacher heads": ("PD101", "5 heads do not divide hidden 256", ("4, kv_heads: 2}\n    tr", "¦5}\n    tr")),
    "head_dim": (
        "PD101",
        "head_dim is 64; llama3 has hidden/heads = 32",
        (STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: 4, head_dim: ¦64}"),
    ),
    "kv_heads": ("PD102", "kv_heads is 3", (STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: 4, kv_heads: ¦3}")),
    "odd head": (
        "PD103",
        "a head is 31 wide",
        (STUDENT, "{family: qwen3, hidden: 128, ffn: 352, layers: 4, heads: 4, head_dim: ¦31}"),
    ),
    "top_k": (
        "PD104",
        "top_k is 255",
        (TOKENIZER, "{kind: pretrained, path: a, vocabulary: 200}"),
        ("k: 50", "k: ¦255"),
    ),
    "micro": (
        "PD111",
        "micro 5 does not divide",
        (END + "  batch: {global: 16, micro: 8}", "batch: {global: 16, micro: ¦5}"),
    ),
    "micro and devices": (
        "PD111",
        "micro 8 × 4 data-parallel devices",
        (
            END + "  batch: {global: 16, micro: 8}",
            "batch: {global: 16, micro: ¦8}\n  parallelism: {data_shard: 2, data_replicate: 2}",
        ),
    ),
    "one step": ("PD112", "4000 tokens are less than the 4096", (END, "tokens: ¦4k\n")),
    "one step of all": ("PD112", "4000 tokens", (END + "  ", ""), ("train_tokens: 1.5M", "train_tokens: ¦4k")),
    "too many": ("PD113", "takes 2000000 tokens; data.train_tokens is 1500000", (END, "tokens: ¦2M\n")),
    "validation": ("PD114", "100 held-out tokens", ("validation_tokens: 64k", "validation_tokens: ¦100")),
    "alpha phases": ("PD115", "warmup 0.6 and decay 0.5 are 1.1", (ALPHA, "{schedule: wsd, warmup: ¦60%, decay: 50%}")),
    "rate phases": (
        "PD115",
        "warmup 0.6 and decay 0.5",
        (END, END + "  learning_rate_schedule: {schedule: wsd, warmup: ¦0.6, decay: 0.5}\n"),
    ),
    "chunks": ("PD116", "7 loss chunks do not divide", (END, END + "  loss_chunks: ¦7\n")),
    "tied pipeline": (
        "PD121",
        "pipeline is 2",
        (STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: 4, tied_embeddings: true}"),
        (END, END + "  parallelism: {pipeline: ¦2}\n"),
    ),
    "deep pipeline": ("PD122", "5 pipeline stages for 4 layers", (END, END + "  parallelism: {pipeline: ¦5}\n")),
    "tensor": ("PD123", "does not divide kv_heads (2)", (END, END + "  parallelism: {tensor: ¦4}\n")),
    "tensor vocabulary": (
        "PD123",
        "does not divide the vocabulary (2049)",
        (TOKENIZER, "{kind: trained, vocabulary: 2049}"),
        (END, END + "  parallelism: {tensor: ¦2}\n"),
    ),
    "context": ("PD124", "a multiple of 512; it is 256", (END, END + "  parallelism: {context: ¦2}\n")),
    "interleaved": (
        "PD122",
        "8 pipeline stages for 4 layers",
        (END, END + "  parallelism: {pipeline: ¦4, pipeline_schedule: interleaved_1f1b}\n"),
    ),
    "pipeline micro": (
        "PD125",
        "no multiple of 3",
        (
            END + "  batch: {global: 16, micro: 8}",
            "batch: {global: 16, micro: ¦8}\n  parallelism: {pipeline: 2, pipeline_microbatch: 3}",
        ),
    ),
    "pipeline not fed": (
        "PD125",
        "micro 2 is less than 4: 1 at once through 4 pipeline stages (1f1b)",
        (
            END + "  batch: {global: 16, micro: 8}",
            "batch: {global: 16, micro: ¦2}\n  parallelism: {pipeline: 4}",
        ),
    ),
    "teacher without an objective": (
        "PD130",
        "there is a teacher, and no objective",
        (
            "student:\n",
            "finetune:\n  instructions: {path: i.jsonl}\n  instruction_tokens: 1M\n  training: {batch: {global: 1}}\n"
            "  ¦teacher: {model: {kind: huggingface, path: some/model}}\nstudent:\n",
        ),
    ),
    "no teacher": ("PD131", "α is above 0", ("teacher:\n  " + OWN, "_"), (ALPHA, "¦0.5")),
    "other tokenizer": (
        "PD141",
        "the teacher some/model has its own",
        (OWN, "model: " + HUB),
        ("kind: trained", "kind: ¦trained"),
    ),
    "temperature": ("PD151", "τ is 5", ("temperature: 1.0", "temperature: ¦5")),
    "alpha 1": ("PD152", "α is 1 on a truncated target", (ALPHA, "¦1")),
    "plateau 1": ("PD152", "α is 1", ("peak: 0.9", "peak: ¦1.0")),
    "small student": (
        "PD153",
        "% of the teacher's",
        ("architecture: " + STUDENT, "¦architecture: {hidden: 16, ffn: 16, layers: 1, heads: 2}"),
    ),
    "schedules": ("PD154", "the learning rate cosine", (END, END + "  learning_rate_schedule: {schedule: ¦cosine}\n")),
    "few kept": ("PD155", "only 9 tokens", ("top_k: 50", "top_k: ¦9")),
    "unpinned teacher": (
        "PD156",
        "some/model is not pinned",
        (OWN, "model: {kind: huggingface, path: ¦some/model}"),
        (TOKENIZER, "{path: some/model, revision: a}"),
    ),
    "unpinned tokenizer": (
        "PD156",
        "some/model is not pinned",
        (OWN, "model: " + HUB),
        (TOKENIZER, "{path: ¦some/model}"),
    ),
    "two sources": (
        "PD157",
        "the tokenizer is an/other",
        (OWN, "model: " + HUB),
        (TOKENIZER, "{path: ¦an/other, revision: a}"),
    ),
    "tokens and steps": ("PD117", "both steps 60 and tokens 600000", (END, END + "  steps: ¦60\n")),
    "steps beyond the data": (
        "PD113",
        "takes 1638400 tokens (400 steps of 4096); data.train_tokens is 1500000",
        (END, "steps: ¦400\n"),
    ),
    "keep": ("PD118", "keep is 1", ("keep: 2", "keep: ¦1")),
    "evaluated behind the end": (
        "PD119",
        "step 147 is to be evaluated, and the training has 146 steps",
        ("student:\n", "evaluate: {at: [10, ¦147]}\nstudent:\n"),
    ),
    "evaluated at the end": (
        "PD119",
        "step 146 is to be evaluated",
        ("student:\n", "evaluate: {at: [¦146]}\nstudent:\n"),
    ),
    "bounds": (
        "PD132",
        "minimum 3 is above maximum 2",
        ("temperature: 1.0", "temperature: {kind: adakd_h, minimum: ¦3, maximum: 2}"),
    ),
    "online elsewhere": (
        "PD133",
        "the teacher is huggingface",
        (OWN, "logits: {mode: ¦online, from_step: 9}\n  model: " + HUB),
        (TOKENIZER, "{path: some/model, revision: a}"),
        (ALPHA, "0.1"),
    ),
    "online too late": (
        "PD134",
        "from step 300 of 366 the teacher sees 1072 sequences; the student learns 2336",
        ("  model:", "  logits: {mode: online, from_step: ¦300}\n  model:"),
        (ALPHA, "0.1"),
    ),
    "follows what is not recorded": (
        "PD146",
        "schedule is teacher_convergence, and the teacher's distributions are offline",
        (ALPHA, "{schedule: ¦teacher_convergence, peak: 0.5}"),
    ),
    "tail of a sample": (
        "PD135",
        "tail is ghost, and the truncation is sample",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}"),
        ("temperature: 1.0", "tail: ¦ghost"),
    ),
    "logits of a sample": (
        "PD136",
        "keeps counts",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}"),
        ("temperature: 1.0", "loss: {kind: mse, on: ¦logits} # pdforge: ignore[PD158] because it is not meant here"),
    ),
    "reverse without a bucket": (
        "PD137",
        "the loss is reverse_kld and the tail renormalise: the loss would be infinite",
        ("temperature: 1.0", "loss: {kind: ¦reverse_kld} # pdforge: ignore[PD159] because it is not meant here"),
    ),
    "tail of logits": (
        "PD138",
        "tail is label, and the loss is mse on logits",
        (
            "temperature: 1.0",
            "loss: {kind: mse, on: logits} # pdforge: ignore[PD158] because it is not meant here\n  tail: ¦label",
        ),
    ),
    "jsd of a sample": (
        "PD139",
        "the loss is jsd, and the truncation is sample",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}"),
        ("temperature: 1.0", "loss: {kind: ¦jsd}"),
    ),
    "temperature of a sample": (
        "PD143",
        "temperature is 2, and the truncation is sample",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}"),
        ("temperature: 1.0", "temperature: ¦2"),
    ),
    "adaptive temperature of a sample": (
        "PD143",
        "temperature is adakd_h",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}"),
        ("temperature: 1.0", "¦temperature: {kind: adakd_h}"),
    ),
    "more learnt than kept": (
        "PD145",
        "top_k is 50, and what is kept has 20",
        ("{top_p: 0.95, top_k: 50}", "{top_p: 0.95, top_k: ¦50}\n  logits: {keep: {top_p: 0.95, top_k: 20}}"),
    ),
    "keeping more of a sample": (
        "PD145",
        "keep cuts a distribution, and the truncation is sample",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}\n  logits: {¦keep: {top_k: 20}}"),
    ),
    "codec of a sample": (
        "PD144",
        "codec is lossless",
        ("{top_p: 0.95, top_k: 50}", "{kind: sample}\n  logits: {codec: ¦lossless}"),
    ),
    "weights of teachers": (
        "PD147",
        "the weights sum to 0.9, not to 1",
        ("teacher", "_"),
        ("student:\n", f"teachers: [{{weight: ¦0.6, {EACH}}}, {{weight: 0.3, {EACH}}}]\nstudent:\n"),
    ),
    "live among several": (
        "PD148",
        "mode is live, of several teachers",
        ("teacher", "_"),
        (
            "student:\n",
            f"teachers: [{{weight: 0.7, {EACH}}}, {{weight: 0.3, logits: {{mode: ¦live}}, {EACH}}}]\nstudent:\n",
        ),
    ),
    "tasks of nothing": (
        "PD149",
        "piqa is asked of the exported model",
        ("student:\n", "evaluate: {tasks: [{task: ¦piqa}]}\nstudent:\n"),
    ),
    "same task": (
        "PD142",
        "there is a result 'piqa' already",
        (
            "student:\n",
            "evaluate: {tasks: [{task: piqa}, {task: arc}, {task: ¦piqa, shots: 4}]}\nexport: {}\nstudent:\n",
        ),
    ),
    "mse": ("PD158", "the loss is mse", ("temperature: 1.0", "loss: {kind: ¦mse}")),
    "reverse": ("PD159", "the loss is reverse_kld", ("temperature: 1.0", "loss: {kind: ¦reverse_kld}\n  tail: ghost")),
    "hot schedule": (
        "PD151",
        "τ is 6",
        ("temperature: 1.0", "temperature: {kind: scheduled, high: ¦6, along: {schedule: linear_dec}}"),
    ),
    "online early": (
        "PD160",
        "from step 182 of 366",
        ("  model:", "  logits: {mode: online, from_step: ¦182}\n  model:"),
        (ALPHA, "0.1"),
    ),
    "online twice": (
        "PD140",
        "epochs is 2, and mode is online",
        ("  model:", "  logits: {mode: online, from_step: 200}\n  model:"),
        (ALPHA, "0.1"),
        (END, END + "  epochs: ¦2\n"),
    ),
    "too many twice": (
        "PD113",
        "takes 3100000 tokens; data.train_tokens is 1500000, 2 times",
        (END, "tokens: ¦3_100_000\n  epochs: 2\n"),
    ),
    "online heavy": (
        "PD162",
        "α reaches 0.9",
        ("  model:", "  logits: {mode: online, from_step: 200}\n  model:"),
        ("peak: 0.9", "peak: ¦0.9"),
    ),
    "late validation": ("PD163", "every 146 steps", (END, END + "  validate_every: ¦146\n")),
    "near chance": (
        "PD164",
        "mmlu is near chance for a student of",
        ("student:\n", "evaluate: {tasks: [{task: piqa}, {task: ¦mmlu, shots: 6}]}\nexport: {}\nstudent:\n"),
    ),
    "adaptive": ("PD165", "the temperature is wttm", ("temperature: 1.0", "temperature: {kind: ¦wttm}")),
    "few draws": ("PD166", "only 11 draws", ("{top_p: 0.95, top_k: 50}", "{kind: sample, draws: ¦11}")),
    "unpinned corpus": (
        "PD156",
        "some/text is not pinned",
        (
            "{kind: python-stdlib}",
            "{kind: mixture, sources: [{corpus: {kind: huggingface, path: ¦some/text}}]}",
        ),
    ),
    "unpinned conversations": (
        "PD156",
        "some/chats is not pinned",
        (
            "student:\n",
            "finetune:\n  instructions: {kind: huggingface, path: ¦some/chats}\n  instruction_tokens: 1M\n"
            "  training: {batch: {global: 1}}\nstudent:\n",
        ),
    ),
    "fine-tuning in steps": (
        "PD112",
        "100 tokens are less than the 256",
        (
            "student:\n",
            "finetune:\n  instructions: {path: i.jsonl}\n  instruction_tokens: ¦100\n"
            "  training: {batch: {global: 1}}\nstudent:\n",
        ),
    ),
    "late checkpoint of fine-tuning in epochs": (
        "PD161",
        "every 3 steps, and the training has 3",
        (
            "student:\n",
            "finetune:\n  instructions: {path: i.jsonl}\n  instruction_tokens: 1k\n"
            "  training: {batch: {global: 1}, epochs: 4, checkpoint: {every: ¦3}}\nstudent:\n",
        ),
    ),
    "fine-tuning on more than is asked for": (
        "PD113",
        "takes 1024 tokens (4 steps of 256); finetune.instruction_tokens is 1000",
        (
            "student:\n",
            "finetune:\n  instructions: {path: i.jsonl}\n  instruction_tokens: 1k\n"
            "  training: {batch: {global: 1}, epochs: 4, steps: ¦4, checkpoint: {every: 1}}\nstudent:\n",
        ),
    ),
    "late checkpoint": ("PD161", "every 146 steps, and the training has 146", ("every: 50, keep", "every: ¦146, keep")),
}


def without_teacher(text: str) -> str:
    """The recipe without its teacher as a whole, which `_` stands for above."""
    return text[: text.index("teacher:\n")] + text[text.index("student:\n") :]


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_finds_its_breach_at_the_place(name: str) -> None:
    code, message, *changes = BROKEN[name]
    marked = SOUND
    for before, planted in changes:
        marked = without_teacher(marked) if planted == "_" else spoil(before, planted, marked)
    found = findings(marked.replace("¦", ""))
    assert [d.code for d in found] == [code], found
    assert found[0].severity is RULES[code].severity
    assert message in found[0].message
    assert (found[0].place.line, found[0].place.column) == place_of("¦", marked)


def test_every_rule_is_tested_and_explained() -> None:
    assert {code for code, *_ in BROKEN.values()} == set(RULES)
    assert set(TOPICS) == {*RULES, *LANGUAGE, *PLANNING}
    for topic in TOPICS.values():
        assert 5 < len(topic.title) < 80
        assert topic.explanation.endswith((".", "`."))
    assert all((RULES[code].severity is Severity.ERROR) == (code < "PD150") for code in RULES)


# What is next to a breach and is none.
SOUND_NEARBY = {
    "PD101": [(STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: 2, head_dim: 64}")],
    "PD102": [(STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: 4, kv_heads: 4}")],
    "PD103": [(STUDENT, "{family: qwen3, hidden: 128, ffn: 352, layers: 4, heads: 4, head_dim: 30}")],
    "PD104": [(TOKENIZER, "{kind: pretrained, path: a, vocabulary: 255}"), ("k: 50", "k: 255")],
    "PD111": [(END, END + "  parallelism: {data_shard: 2}\n")],
    "PD112": [(END, "tokens: 4096\n")],
    "PD113": [(END, "steps: 366\n")],
    "PD114": [("validation_tokens: 64k", "validation_tokens: 256")],
    "PD115": [(ALPHA, "{schedule: wsd, warmup: 60%, decay: 40%}")],
    "PD116": [(END, END + "  loss_chunks: 256\n")],
    "PD117": [(END, "steps: 10\n")],
    "PD118": [("keep: 2", "keep: 3")],
    "PD119": [("student:\n", "evaluate: {at: [145]}\nstudent:\n")],
    "PD121": [(STUDENT, "{hidden: 128, ffn: 352, layers: 4, heads: 4, tied_embeddings: true}")],
    "PD122": [(END, END + "  parallelism: {pipeline: 4}\n")],
    "PD123": [(END, END + "  parallelism: {tensor: 2}\n")],
    "PD124": [("length: 256", "length: 512"), (END, END + "  parallelism: {context: 2}\n")],
    "PD125": [
        (END, END + "  parallelism: {pipeline: 2, pipeline_schedule: interleaved_1f1b, pipeline_microbatch: 4}\n")
    ],
    "PD130": [
        (
            "student:\n",
            "finetune:\n  instructions: {path: i.jsonl}\n  instruction_tokens: 1M\n  training: {batch: {global: 1}}\n"
            "  teacher: {model: {kind: huggingface, path: some/model}}\n  objective: {alpha: 0}\nstudent:\n",
        )
    ],
    "PD131": [(ALPHA, "0"), ("teacher:\n  " + OWN, "_")],
    "PD132": [("temperature: 1.0", "temperature: {kind: adakd_h, minimum: 2, maximum: 2}")],
    "PD133": [("  model:", "  logits: {mode: online, from_step: 200}\n  model:")],
    "PD134": [("  model:", "  logits: {mode: online, from_step: 221}\n  model:")],
    "PD135": [("temperature: 1.0", "tail: ghost")],
    "PD136": [("{top_p: 0.95, top_k: 50}", "{kind: sample}"), ("temperature: 1.0", "loss: {kind: mse}")],
    "PD137": [("temperature: 1.0", "loss: {kind: reverse_kld}\n  tail: ghost")],
    "PD138": [("temperature: 1.0", "loss: {kind: mse, on: probabilities}\n  tail: label")],
    "PD139": [("{top_p: 0.95, top_k: 50}", "{kind: sample}"), ("temperature: 1.0", "loss: {kind: mse}")],
    "PD143": [("{top_p: 0.95, top_k: 50}", "{kind: sample}"), ("temperature: 1.0", "temperature: 1")],
    "PD144": [("{top_p: 0.95, top_k: 50}", "{kind: sample}\n  logits: {columns: [entropy]}")],
    "PD145": [("{top_p: 0.95, top_k: 50}", "{top_p: 0.95, top_k: 50}\n  logits: {keep: {top_p: 0.95, top_k: 50}}")],
    "PD140": [("  model:", "  logits: {mode: online, from_step: 200}\n  model:"), (END, END + "  epochs: 1\n")],
    "PD141": [(OWN, "model: " + HUB), (TOKENIZER, "{path: some/model, revision: a}")],
    "PD142": [
        ("student:\n", "evaluate: {tasks: [{task: piqa}, {task: piqa, shots: 5, name: piqa5}]}\nexport: {}\nstudent:\n")
    ],
    "PD146": [
        ("  model:", "  logits: {mode: online, from_step: 200}\n  model:"),
        (ALPHA, "{schedule: teacher_convergence}"),
    ],
    "PD147": [
        ("teacher", "_"),
        ("student:\n", f"teachers: [{{weight: 0.7, {EACH}}}, {{weight: 30%, {EACH}}}]\nstudent:\n"),
    ],
    "PD148": [("  model:", "  logits: {mode: live}\n  model:")],
    "PD149": [("student:\n", "evaluate: {limit: 5}\nstudent:\n")],
    "PD151": [("temperature: 1.0", "temperature: 4.9")],
    "PD152": [("{top_p: 0.95, top_k: 50}", "{kind: sample}"), (ALPHA, "1")],
    "PD153": [("{hidden: 256, ffn: 704, layers: 6,", "{hidden: 256, ffn: 704, layers: 8,")],
    "PD154": [(END, END + "  learning_rate_schedule: {schedule: wsd}\n")],
    "PD155": [("top_k: 50", "top_k: 9"), ("temperature: 1.0", "tail: label")],
    "PD156": [
        (OWN, "model: " + HUB),
        (TOKENIZER, "{path: ./local/model, vocabulary: 2048}"),
        (
            "student:\n",
            "finetune:\n  instructions: {kind: huggingface, path: some/chats, revision: a}\n"
            "  instruction_tokens: 1M\n  training: {batch: {global: 1}}\nstudent:\n",
        ),
    ],
    "PD157": [(OWN, "model: " + HUB), (TOKENIZER, "{path: some/model, revision: b}")],
    "PD158": [("temperature: 1.0", "loss: {kind: jsd}")],
    "PD159": [("temperature: 1.0", "loss: {kind: nll}")],
    "PD160": [("  model:", "  logits: {mode: online, from_step: 183}\n  model:")],
    "PD161": [("every: 50, keep", "every: 145, keep")],
    "PD162": [("  model:", "  logits: {mode: online, from_step: 200}\n  model:"), ("peak: 0.9", "peak: 0.1")],
    "PD163": [(END, END + "  validate_every: 145\n")],
    "PD164": [("student:\n", "evaluate: {tasks: [{task: hellaswag}]}\nexport: {}\nstudent:\n")],
    "PD165": [("temperature: 1.0", "temperature: {kind: adakd_sd}")],
    "PD166": [("{top_p: 0.95, top_k: 50}", "{kind: sample, draws: 12}")],
}


@pytest.mark.parametrize("code", SOUND_NEARBY)
def test_a_near_miss_is_no_breach(code: str) -> None:
    text = SOUND
    for before, after in SOUND_NEARBY[code]:
        text = without_teacher(text) if after == "_" else spoil(before, after, text)
    found = findings(text)
    assert code not in {d.code for d in found}
    assert not [d for d in found if d.code < "PD100"], "the near miss is no well-formed recipe"


def test_every_rule_has_a_near_miss() -> None:
    assert set(SOUND_NEARBY) == set(RULES)


def test_a_large_student_may_be_asked_what_it_can_answer() -> None:
    tasks = "evaluate={tasks: [{task: mmlu, shots: 6}]}"
    small, large, _ = load_recipes("pd_star", overrides=[tasks, "export={}"])
    assert ["PD164" in {d.code for d in each.warnings} for each in (small, large)] == [True, False]


def test_rules_hold_for_both_models_of_a_recipe() -> None:
    text = SOUND.replace("batch: {global: 16, micro: 8}", "batch: {global: 16, micro: 7}")
    assert [d.field for d in findings(text)] == ["teacher.model.training.batch.micro", "training.batch.micro"]


def test_a_free_head_width_is_sound() -> None:
    assert findings(spoil(STUDENT, "{family: qwen3, hidden: 128, ffn: 352, layers: 4, heads: 3, head_dim: 64}")) == []


def test_without_distillation_no_advice_on_it() -> None:
    text = spoil("temperature: 1.0", "temperature: 9", spoil("top_k: 50", "top_k: 2", spoil(ALPHA, "0")))
    assert findings(text) == []


def test_an_alpha_that_follows_its_teacher_may_begin_early_and_go_high() -> None:
    early = spoil("  model:", "  logits: {mode: online, from_step: 1}\n  model:")
    assert findings(spoil(ALPHA, "{schedule: teacher_convergence, peak: 0.9}", early)) == []
    assert {d.code for d in findings(spoil(ALPHA, "0.9", early))} == {"PD160", "PD162"}


def test_counts_of_any_size_are_judged_in_time() -> None:
    huge = 2**61 - 1  # a prime: no suggestion can be found by trying
    found = findings(spoil(STUDENT, f"{{hidden: {huge}, ffn: {huge}, layers: {huge}, heads: {huge - 1}}}"))
    assert "PD101" in {d.code for d in found}


@pytest.mark.parametrize("name", gallery_names())
def test_the_gallery_has_no_errors_and_answers_its_warnings(name: str) -> None:
    assert not [d for loaded in load_recipes(name) for d in loaded.warnings]


@pytest.mark.parametrize(
    ("alpha", "rate", "truncation"),
    [
        ("1", "cosine", "{top_p: 0.95, top_k: 100}"),  # the preliminary experiment
        ("0.9", "wsd", "{top_p: 0.95, top_k: 1}"),
        ("{schedule: linear_inc}", "cosine", "{top_p: 0.5, top_k: 100}"),
        ("{schedule: linear_dec}", "cosine", "{top_p: 0.95, top_k: 3}"),
        ("{schedule: period}", "cosine", "{top_p: 0.95, top_k: 100}"),
        ("{schedule: wsd_beta, peak: 0.9}", "wsd", "{top_p: 0.95, top_k: 100}"),
    ],
)
def test_the_papers_configurations_have_no_errors(alpha: str, rate: str, truncation: str) -> None:
    load_recipes(
        "pd_star",
        overrides=[
            f"objective.alpha={alpha}",
            f"training.learning_rate_schedule={{schedule: {rate}}}",
            f"teacher.truncation={truncation}",
            "objective.temperature=10",
        ],
    )


def test_the_papers_smallest_students_are_warned_about() -> None:
    shape = "{hidden: 1024, ffn: 4096, layers: 12, heads: 16, kv_heads: 2, tied_embeddings: true}"
    (loaded,) = load_recipes("pd_star", variants=["1.9b"], overrides=[f"student.architecture={shape}"])
    (warning,) = [d for d in loaded.warnings if d.code == "PD153"]
    assert "334,521,344 parameters, 3.6%" in warning.message
    assert str(warning.place) == "--set student.architecture"
