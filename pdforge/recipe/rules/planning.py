"""Codes of what can only be said of a recipe together with a cluster profile, or with runs that exist.

`pdforge.plan.advice` finds them; `plan` and `submit` print them.
"""

from __future__ import annotations

from pdforge.diagnostics import Severity
from pdforge.recipe.rules.registry import Topic

WALLTIME = "PD170"
LONGER = "PD171"
TIGHT = "PD172"
TOO_LARGE = "PD173"
UNBUILDABLE = "PD174"
GONE = "PD175"

PLANNING: dict[str, Topic] = {
    WALLTIME: Topic(
        WALLTIME,
        Severity.WARNING,
        "a job ends before its first checkpoint is due",
        "A job that the scheduler ends at its time limit is told so a little before, and saves. One that dies without "
        "notice, of a node that fails or a save that does not end in time, loses all that it did where no checkpoint "
        "was due before the limit, and a stage may start again and again without getting on. Checkpoints are due by "
        "time where `checkpoint.interval` is set; else every `checkpoint.every` steps, whose time is known once an "
        "attempt of the stage, or a finished run of the same shape, has measured it.",
    ),
    LONGER: Topic(
        LONGER,
        Severity.WARNING,
        "longer than a finished run",
        "A finished run differs from this one in the length of the student's training, and its schedules, only. With "
        "`student: {extend: true}` the student goes on from it, up to where every schedule has had the same values in "
        "both: with a constant learning rate and α from its end, with WSD from before its decay (which is what WSD is "
        "for; the checkpoint is kept). A warm-up is a part of the whole length: half the part of twice the length is "
        "the same warm-up. A cosine, a linear or a periodic schedule gives other values at every step. The token store "
        "must be the same: it is shuffled as a whole when it is built, so more `data.train_tokens` is another order; "
        "leave room there, or read it in several `training.epochs`, and set `training.tokens` or `training.steps`.",
    ),
    TIGHT: Topic(
        TIGHT,
        Severity.WARNING,
        "memory of a GPU may not suffice",
        "The peak of a training step, by arithmetic, leaves less than 5 % of a GPU's memory for what is not counted: "
        "the CUDA context, NCCL's buffers, gaps of the allocator. Parameters, gradients and optimizer follow FSDP2's "
        "rule and are exact; activations count the tensors that autograd keeps in torchtitan's blocks (a test compares "
        "them); what the loss needs is our reading of torchtitan's chunked loss. `pdforge plan` shows all of them.",
    ),
    TOO_LARGE: Topic(
        TOO_LARGE,
        Severity.ERROR,
        "a stage does not fit into a GPU",
        "Parameters, gradients, optimizer and the activations that autograd keeps until the backward pass are there at "
        "one time, and are more than the GPU of the cluster profile has: the job would end out of memory in its first "
        "step. A smaller micro batch takes as many more steps of accumulation and gives the same result; activation "
        "checkpointing computes again what is not kept (selective about 1/6 more FLOPs, full 1/3). A capture holds the "
        "teacher's weights and what one of its layers has at a time: fewer sequences at once give the same "
        "distributions, and a Hugging Face teacher may be shared out (`shard`).",
    ),
    UNBUILDABLE: Topic(
        UNBUILDABLE,
        Severity.ERROR,
        "a training cannot be built at its real size",
        "`pdforge plan --deep` builds the compiled job with torchtitan's own Trainer under a fake process group of the "
        "real number of processes, and runs one step on fake tensors: no memory, no GPU, no network. What torchtitan "
        "or torch refuse there, they would refuse in the first minute of the job, on every GPU of it.",
    ),
    GONE: Topic(
        GONE,
        Severity.ERROR,
        "a step to be evaluated has no checkpoint",
        "`evaluate.at` has the checkpoints of its steps kept while the student is trained. A student that was trained "
        "before a step was named there has that checkpoint only by chance: `checkpoint.keep` has removed most. One "
        "that goes on from a shorter run has none from before.",
    ),
}
"""Topics by code."""
