"""Rules on the objective: what the paper and later work found."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import (
    JSD,
    MSE,
    WTTM,
    AdaKDEntropy,
    AdaKDSpread,
    Constant,
    LearningRateWSD,
    LiveLogits,
    NormKD,
    OfflineLogits,
    Recipe,
    ReverseKLD,
    Sample,
    ScheduledTemperature,
    TeacherConvergence,
    TopPTopK,
    WarmupStableDecay,
)
from pdforge.recipe.pupils import FINETUNING, Pupil
from pdforge.recipe.rules.parts import each_pupil
from pdforge.recipe.rules.registry import Finding, rule
from pdforge.recipe.sizes import parameter_count

_SMALLEST_RATIO = 0.1


@rule("PD131", Severity.ERROR, "distillation without a teacher")
@each_pupil
def teacher_present(recipe: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """α weighs the distillation loss, which compares the student with a teacher. Only where α is 0 throughout can the
    teacher be left out. Fine-tuning takes that of the recipe, and of several none: one runs beside the student."""
    if pupil.teacher is None and pupil.distils:
        remedy = "name one of the `teachers` as finetune.teacher" if recipe.teachers else "add a teacher"
        yield Finding("objective.alpha", "α is above 0, and there is no teacher", f"{remedy}, or set alpha: 0")


@rule("PD130", Severity.ERROR, "teacher of a fine-tuning that minimises the cross-entropy")
def finetuning_has_an_objective(recipe: Recipe) -> Iterator[Finding]:
    """Fine-tuning learns from a teacher where `finetune.objective` says how; without one a teacher would be silently
    without effect."""
    finetune = recipe.finetune
    if finetune is not None and finetune.teacher is not None and finetune.objective is None:
        yield Finding("finetune.teacher", "there is a teacher, and no objective", "add finetune.objective: {alpha: …}")


@rule("PD147", Severity.ERROR, "weights of several teachers")
def weights_sum_to_one(recipe: Recipe) -> Iterator[Finding]:
    """L_kd of several teachers is Σ wᵢ·L_kd,i. It is a mean as that of one is, and α weighs it against L_lm as always,
    where the weights sum to 1. `teacher` is one teacher and `teachers` are several: only one of the two can stand."""
    weights = [teacher.weight for teacher in recipe.teachers]
    if recipe.teachers and recipe.teacher is not None:
        yield Finding("teachers", "there are both teacher and teachers", "teacher: null, or leave teachers out")
    if weights and abs(sum(weights) - 1) > 1e-6:
        scaled = ", ".join(f"{weight / sum(weights):.4g}" for weight in weights) if sum(weights) else ""
        remedy = f"weights {scaled}" if scaled else "weights that sum to 1"
        yield Finding("teachers.0.weight", f"the weights sum to {sum(weights):.6g}, not to 1", remedy)


@rule("PD148", Severity.ERROR, "several teachers that are not all stored beforehand")
def several_are_stored(recipe: Recipe) -> Iterator[Finding]:
    """Several teachers' distributions are read side by side, sample by sample: each is captured into a store of its own
    before the student starts. One that runs live would take the student's memory once more, and one that is captured
    online has seen the samples of its own last steps only."""
    for number, teacher in enumerate(recipe.teachers):
        if not isinstance(teacher.logits, OfflineLogits):
            mode = teacher.logits.mode
            yield Finding(f"teachers.{number}.logits.mode", f"mode is {mode}, of several teachers", "mode: offline")


@rule("PD151", Severity.WARNING, "very high temperature")
@each_pupil
def temperature_moderate(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """The paper's study of τ (Table 2) finds gains of 1.6 to 2.7 % between 0.05 and 2, none at 5 (-0.1 %) and 1.0 %
    at 10: a target that flat says little more than which tokens were kept. PD* uses τ = 2."""
    temperature = pupil.objective.temperature
    field = "objective.temperature"
    if isinstance(temperature, ScheduledTemperature):
        field, temperature = f"{field}.high", max(temperature.high, temperature.low)
    if pupil.distils and isinstance(temperature, float) and temperature >= 5:
        yield Finding(
            field,
            f"τ is {temperature:g}; the paper found no gain at 5, and the best between 0.5 and 2",
        )


@rule("PD152", Severity.WARNING, "truncated target without any language-modelling loss")
@each_pupil
def some_language_modelling(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """With α = 1 the student never sees the true next token, and a truncated, renormalised distribution is a biased
    stand-in for the teacher's. The distillation scaling laws (arXiv 2502.08606) put the cost at about 0.1 nats, and
    at about 0.01 with 30 % language modelling; in the paper's Table 4, α = 0.9 gains 3.6 % and α = 1 only 1.6 %."""
    alpha = pupil.objective.alpha
    plateau = alpha.peak if isinstance(alpha, WarmupStableDecay | TeacherConvergence) else 0.0
    top = alpha.value if isinstance(alpha, Constant) else plateau
    if pupil.teacher is not None and isinstance(pupil.teacher.truncation, TopPTopK) and top == 1:
        field = "objective.alpha.value" if isinstance(alpha, Constant) else "objective.alpha.peak"
        yield Finding(field, "α is 1 on a truncated target: no language-modelling loss corrects it", "0.9 did best")


@rule("PD153", Severity.WARNING, "student far smaller than its teacher")
@each_pupil
def student_large_enough(recipe: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """In the paper (Table 11) distillation starts to pay when the student has about a tenth of the teacher's
    parameters: of a 9B teacher, 330M loses 1.5 %, 670M gains 0.8 %, 1.9B 1.6 % and 3.8B 6.8 %; with a 32B teacher
    1.9B gains 0.6 %. The scaling laws of distillation (arXiv 2502.08606) see the same capacity gap."""
    vocabulary, model = recipe.data.tokenizer.vocabulary, pupil.teacher.model if pupil.teacher else None
    if not pupil.distils or vocabulary is None or model is None or model.architecture is None:
        return
    student = parameter_count(pupil.architecture, vocabulary).total
    teacher = parameter_count(model.architecture, vocabulary).total
    if student < _SMALLEST_RATIO * teacher:
        yield Finding(
            "student.architecture",
            f"the student has {student:,} parameters, {student / teacher:.1%} of the teacher's {teacher:,}",
            "a larger student or a smaller teacher: distillation pays from about 10 %",
        )


@rule("PD154", Severity.WARNING, "α and learning rate follow different schedules")
@each_pupil
def schedules_match(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """The paper's largest gain (Table 5) is WSD for α together with WSD for the learning rate: 8.0 %. WSD for α over
    a cosine learning rate gains 2.3 %, WSD for the learning rate alone 5.0 %."""
    if isinstance(pupil.objective.alpha, WarmupStableDecay) and pupil.distils:
        rate = pupil.training.learning_rate_schedule
        if not isinstance(rate, LearningRateWSD):
            yield Finding(
                "training.learning_rate_schedule.schedule",
                f"α follows wsd and the learning rate {rate.schedule}",
                "learning_rate_schedule: {schedule: wsd}",
            )


@rule("PD155", Severity.WARNING, "few tokens kept of each distribution")
@each_pupil
def enough_kept(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Renormalising a short top-k list shifts the mass of everything cut off onto the kept tokens: a biased target.
    Sparse Logit Sampling (arXiv 2503.16870) measures a language-modelling loss of 2.50 for top-12 and 2.40 for top-50
    against 2.37 without a teacher and 2.34 with the full distribution; in the paper's Table 8, k = 50 does best (+5.0
    %) and k = 3 gains 1.1 %."""
    truncation = pupil.teacher.truncation if pupil.teacher and pupil.distils else None
    renormalised = pupil.objective.tail == "renormalise"
    if isinstance(truncation, TopPTopK) and renormalised and truncation.top_k < 10:
        yield Finding(
            "teacher.truncation.top_k",
            f"only {truncation.top_k} tokens of each distribution are kept and renormalised",
            "top_k: 50 did best in the paper",
        )


@rule("PD158", Severity.WARNING, "squared error as the distillation loss")
@each_pupil
def not_squared_error(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """In the paper's comparison of losses (Table 5) MSE loses 7.6 % to training without a teacher, while NLL gains
    1.6 % and KLD 2.6 %: squared differences of probabilities hardly notice what is unlikely."""
    if pupil.distils and isinstance(pupil.objective.loss, MSE):
        yield Finding(
            "objective.loss.kind", "the loss is mse, the only one that does worse than no teacher", "kld did best"
        )


@rule("PD159", Severity.WARNING, "reverse divergence in pre-training")
@each_pupil
def not_reverse(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Reverse KLD makes the student choose among the teacher's modes, which helps generation when fine-tuning; for
    pre-training the distillation scaling laws (arXiv 2502.08606) find forward KLD better by 0.28 nats."""
    if pupil.distils and isinstance(pupil.objective.loss, ReverseKLD) and pupil.path != FINETUNING:
        yield Finding(
            "objective.loss.kind", "the loss is reverse_kld; forward kld pre-trains better", "loss: {kind: kld}"
        )


@rule("PD165", Severity.WARNING, "adaptive temperature that did not pay")
@each_pupil
def adaptive_temperature_pays(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """In the paper's Table 3 NormKD loses 1.3 % to training without a teacher and WTTM gains 0.2 %, where the
    constant τ = 1 gains 1.6 %, τ = 2 2.5 % and AdaKD by entropy 2.8 %."""
    temperature = pupil.objective.temperature
    if pupil.distils and isinstance(temperature, NormKD | WTTM):
        yield Finding(
            "objective.temperature.kind",
            f"the temperature is {temperature.kind}, which did worse than a constant one",
            "temperature: 2.0, or {kind: adakd_h}",
        )


@rule("PD132", Severity.ERROR, "bounds of the temperature are exchanged")
@each_pupil
def temperature_bounds(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """An AdaKD temperature lies between minimum and maximum, so the first cannot be above the second."""
    temperature = pupil.objective.temperature
    if isinstance(temperature, AdaKDSpread | AdaKDEntropy) and temperature.minimum > temperature.maximum:
        yield Finding(
            "objective.temperature.minimum",
            f"minimum {temperature.minimum:g} is above maximum {temperature.maximum:g}",
            "exchange them",
        )


@rule("PD135", Severity.ERROR, "tail of a distribution that has none")
@each_pupil
def sampled_has_no_tail(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Sampling draws from the whole distribution (arXiv 2503.16870): nothing is cut off, so there is no mass for a
    ghost bucket or the label to take. Only top-p-top-k truncation has a tail."""
    tail = pupil.objective.tail
    if pupil.teacher is not None and isinstance(pupil.teacher.truncation, Sample) and tail != "renormalise":
        yield Finding(
            "objective.tail", f"tail is {tail}, and the truncation is sample, which cuts nothing off", "leave it out"
        )


@rule("PD137", Severity.ERROR, "loss that is infinite on a truncated target")
@each_pupil
def reverse_needs_a_bucket(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Reverse KLD, Σ q log(q/w), is infinite wherever the student gives any probability to what the target w rules
    out, and a student's softmax rules out nothing. Only with `tail: ghost`, one bucket for all that was cut off, is it
    finite; a sampled target has no such bucket."""
    if isinstance(pupil.objective.loss, ReverseKLD) and pupil.objective.tail != "ghost":
        yield Finding(
            "objective.loss.kind",
            f"the loss is reverse_kld and the tail {pupil.objective.tail}: the loss would be infinite",
            "tail: ghost with top-p-top-k truncation, or loss: {kind: jsd}, which is finite on every target",
        )


@rule("PD138", Severity.ERROR, "tail that a loss on logits cannot see")
@each_pupil
def logits_have_no_tail(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """MSE on logits compares the logits of the kept tokens, each side less its mean over them. Mass that was cut off
    has no logit: neither a bucket nor what the label gains can be compared."""
    loss, tail = pupil.objective.loss, pupil.objective.tail
    if isinstance(loss, MSE) and loss.on == "logits" and tail != "renormalise":
        yield Finding("objective.tail", f"tail is {tail}, and the loss is mse on logits", "tail: renormalise")


@rule("PD139", Severity.ERROR, "loss that a sampled target biases")
@each_pupil
def sampled_needs_a_linear_loss(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """A sampled target equals the teacher's distribution on average only, so the gradient does where it is linear in
    the target: nll, kld and mse on probabilities. JSD takes the logarithm of a mixture with the target, and its
    expectation over draws is another loss (arXiv 2503.16870 trains on nll)."""
    sampled = pupil.teacher is not None and isinstance(pupil.teacher.truncation, Sample)
    if sampled and isinstance(pupil.objective.loss, JSD):
        yield Finding("objective.loss.kind", "the loss is jsd, and the truncation is sample", "loss: {kind: kld}")


@rule("PD136", Severity.ERROR, "squared error on logits that are not stored")
@each_pupil
def sampled_has_no_logits(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """MSE on logits compares the teacher's logits of the kept tokens. A sampled distribution holds how often a token
    was drawn, and no logits."""
    loss = pupil.objective.loss
    sampled = pupil.teacher is not None and isinstance(pupil.teacher.truncation, Sample)
    if sampled and isinstance(loss, MSE) and loss.on == "logits":
        yield Finding(
            "objective.loss.on", "mse on logits, and the truncation is sample, which keeps counts", "on: probabilities"
        )


@rule("PD166", Severity.WARNING, "few draws of each distribution")
@each_pupil
def enough_draws(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """A sampled target is unbiased at any size, but noisy when small: Sparse Logit Sampling (arXiv 2503.16870) reaches
    2.35 nats with 12 ids, next to 2.34 of the full distribution; Gemma 2 and 3 draw 256."""
    truncation = pupil.teacher.truncation if pupil.teacher and pupil.distils else None
    if isinstance(truncation, Sample) and truncation.draws < 12:
        yield Finding("teacher.truncation.draws", f"only {truncation.draws} draws of each distribution", "12 or more")


@rule("PD143", Severity.ERROR, "temperature of a sampled distribution")
@each_pupil
def sampled_at_one(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Counts of draws are unbiased for the teacher's distribution at τ=1, and for no other: a power of a count is no
    estimate of the power of a probability (the mean of √count is not √mean), and tokens that were not drawn stay at 0
    whatever τ says. With 50 draws τ=2 flattens the noise of the sample, not the teacher."""
    temperature = pupil.objective.temperature
    sampled = pupil.teacher is not None and isinstance(pupil.teacher.truncation, Sample)
    if sampled and pupil.distils and temperature != 1:
        said = f"{temperature:g}" if isinstance(temperature, float) else temperature.kind
        yield Finding(
            "objective.temperature",
            f"temperature is {said}, and the truncation is sample, which holds counts of draws at τ=1",
            "temperature: 1.0, or truncation: {kind: topp_topk}",
        )


@rule("PD144", Severity.ERROR, "codec of a sampled distribution")
@each_pupil
def sampled_has_its_codec(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Counts of draws are stored exactly, by a codec of their own; the others store probabilities."""
    teacher = pupil.teacher
    if teacher is None or not isinstance(teacher.truncation, Sample) or isinstance(teacher.logits, LiveLogits):
        return
    if teacher.logits.codec is not None:
        yield Finding(
            "teacher.logits.codec",
            f"codec is {teacher.logits.codec}, and the truncation is sample, which is stored as exact counts",
            "leave it out",
        )


@rule("PD145", Severity.ERROR, "more learnt than is kept")
@each_pupil
def kept_includes_learnt(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """A store serves any truncation inside its own: top_p and top_k at most those of `logits.keep`. What was cut off at
    capture is gone. A sample is fair only as a whole, so it is kept as it is drawn."""
    teacher = pupil.teacher
    if teacher is None or isinstance(teacher.logits, LiveLogits) or teacher.logits.keep is None:
        return
    learnt, kept = teacher.truncation, teacher.logits.keep
    if isinstance(learnt, Sample):
        cuts = "keep cuts a distribution, and the truncation is sample, which cuts nothing"
        yield Finding("teacher.logits.keep", cuts, "leave it out")
        return
    for name in ("top_p", "top_k"):
        if getattr(learnt, name) > getattr(kept, name):
            yield Finding(
                f"teacher.truncation.{name}",
                f"{name} is {getattr(learnt, name):g}, and what is kept has {getattr(kept, name):g}",
                f"at most teacher.logits.keep.{name}",
            )
