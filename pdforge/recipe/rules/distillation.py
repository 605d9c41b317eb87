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
    Recipe,
    ReverseKLD,
    Sample,
    ScheduledTemperature,
    TopPTopK,
    WarmupStableDecay,
)
from pdforge.recipe.rules.parts import architectures
from pdforge.recipe.rules.registry import Finding, rule
from pdforge.recipe.sizes import parameter_count
from pdforge.schedules import is_zero

_SMALLEST_RATIO = 0.1


def distils(recipe: Recipe) -> bool:
    """Whether any step gives the teacher weight."""
    return not is_zero(recipe.objective.alpha)


@rule("PD131", Severity.ERROR, "distillation without a teacher")
def teacher_present(recipe: Recipe) -> Iterator[Finding]:
    """α weighs the distillation loss, which compares the student with a teacher. Only where α is 0 throughout can the
    teacher be left out."""
    if recipe.teacher is None and distils(recipe):
        yield Finding("objective.alpha", "α is above 0, and there is no teacher", "add a teacher, or set alpha: 0")


@rule("PD151", Severity.WARNING, "very high temperature")
def temperature_moderate(recipe: Recipe) -> Iterator[Finding]:
    """The paper's study of τ (Table 2) finds gains of 1.6 to 2.7 % between 0.05 and 2, none at 5 (-0.1 %) and 1.0 %
    at 10: a target that flat says little more than which tokens were kept. PD* uses τ = 2."""
    temperature = recipe.objective.temperature
    field = "objective.temperature"
    if isinstance(temperature, ScheduledTemperature):
        field, temperature = f"{field}.high", max(temperature.high, temperature.low)
    if distils(recipe) and isinstance(temperature, float) and temperature >= 5:
        yield Finding(
            field,
            f"τ is {temperature:g}; the paper found no gain at 5, and the best between 0.5 and 2",
        )


@rule("PD152", Severity.WARNING, "truncated target without any language-modelling loss")
def some_language_modelling(recipe: Recipe) -> Iterator[Finding]:
    """With α = 1 the student never sees the true next token, and a truncated, renormalised distribution is a biased
    stand-in for the teacher's. The distillation scaling laws (arXiv 2502.08606) put the cost at about 0.1 nats, and
    at about 0.01 with 30 % language modelling; in the paper's Table 4, α = 0.9 gains 3.6 % and α = 1 only 1.6 %."""
    alpha = recipe.objective.alpha
    top = alpha.value if isinstance(alpha, Constant) else alpha.peak if isinstance(alpha, WarmupStableDecay) else 0.0
    if recipe.teacher is not None and isinstance(recipe.teacher.truncation, TopPTopK) and top == 1:
        field = "objective.alpha.value" if isinstance(alpha, Constant) else "objective.alpha.peak"
        yield Finding(field, "α is 1 on a truncated target: no language-modelling loss corrects it", "0.9 did best")


@rule("PD153", Severity.WARNING, "student far smaller than its teacher")
def student_large_enough(recipe: Recipe) -> Iterator[Finding]:
    """In the paper (Table 11) distillation starts to pay when the student has about a tenth of the teacher's
    parameters: of a 9B teacher, 330M loses 1.5 %, 670M gains 0.8 %, 1.9B 1.6 % and 3.8B 6.8 %; with a 32B teacher
    1.9B gains 0.6 %. The scaling laws of distillation (arXiv 2502.08606) see the same capacity gap."""
    shapes = dict(architectures(recipe))
    vocabulary = recipe.data.tokenizer.vocabulary
    if not distils(recipe) or vocabulary is None or "teacher.model.architecture" not in shapes:
        return
    student = parameter_count(shapes["student.architecture"], vocabulary).total
    teacher = parameter_count(shapes["teacher.model.architecture"], vocabulary).total
    if student < _SMALLEST_RATIO * teacher:
        yield Finding(
            "student.architecture",
            f"the student has {student:,} parameters, {student / teacher:.1%} of the teacher's {teacher:,}",
            "a larger student or a smaller teacher: distillation pays from about 10 %",
        )


@rule("PD154", Severity.WARNING, "α and learning rate follow different schedules")
def schedules_match(recipe: Recipe) -> Iterator[Finding]:
    """The paper's largest gain (Table 5) is WSD for α together with WSD for the learning rate: 8.0 %. WSD for α over
    a cosine learning rate gains 2.3 %, WSD for the learning rate alone 5.0 %."""
    if isinstance(recipe.objective.alpha, WarmupStableDecay) and distils(recipe):
        rate = recipe.training.learning_rate_schedule
        if not isinstance(rate, LearningRateWSD):
            yield Finding(
                "training.learning_rate_schedule.schedule",
                f"α follows wsd and the learning rate {rate.schedule}",
                "learning_rate_schedule: {schedule: wsd}",
            )


@rule("PD155", Severity.WARNING, "few tokens kept of each distribution")
def enough_kept(recipe: Recipe) -> Iterator[Finding]:
    """Renormalising a short top-k list shifts the mass of everything cut off onto the kept tokens: a biased target.
    Sparse Logit Sampling (arXiv 2503.16870) measures a language-modelling loss of 2.50 for top-12 and 2.40 for top-50
    against 2.37 without a teacher and 2.34 with the full distribution; in the paper's Table 8, k = 50 does best (+5.0
    %) and k = 3 gains 1.1 %."""
    truncation = recipe.teacher.truncation if recipe.teacher and distils(recipe) else None
    renormalised = recipe.objective.tail == "renormalise"
    if isinstance(truncation, TopPTopK) and renormalised and truncation.top_k < 10:
        yield Finding(
            "teacher.truncation.top_k",
            f"only {truncation.top_k} tokens of each distribution are kept and renormalised",
            "top_k: 50 did best in the paper",
        )


@rule("PD158", Severity.WARNING, "squared error as the distillation loss")
def not_squared_error(recipe: Recipe) -> Iterator[Finding]:
    """In the paper's comparison of losses (Table 5) MSE loses 7.6 % to training without a teacher, while NLL gains
    1.6 % and KLD 2.6 %: squared differences of probabilities hardly notice what is unlikely."""
    if distils(recipe) and isinstance(recipe.objective.loss, MSE):
        yield Finding(
            "objective.loss.kind", "the loss is mse, the only one that does worse than no teacher", "kld did best"
        )


@rule("PD159", Severity.WARNING, "reverse divergence in pre-training")
def not_reverse(recipe: Recipe) -> Iterator[Finding]:
    """Reverse KLD makes the student choose among the teacher's modes, which helps generation after fine-tuning; for
    pre-training the distillation scaling laws (arXiv 2502.08606) find forward KLD better by 0.28 nats."""
    if distils(recipe) and isinstance(recipe.objective.loss, ReverseKLD):
        yield Finding(
            "objective.loss.kind", "the loss is reverse_kld; forward kld pre-trains better", "loss: {kind: kld}"
        )


@rule("PD165", Severity.WARNING, "adaptive temperature that did not pay")
def adaptive_temperature_pays(recipe: Recipe) -> Iterator[Finding]:
    """In the paper's Table 3 NormKD loses 1.3 % to training without a teacher and WTTM gains 0.2 %, where the
    constant τ = 1 gains 1.6 %, τ = 2 2.5 % and AdaKD by entropy 2.8 %."""
    temperature = recipe.objective.temperature
    if distils(recipe) and isinstance(temperature, NormKD | WTTM):
        yield Finding(
            "objective.temperature.kind",
            f"the temperature is {temperature.kind}, which did worse than a constant one",
            "temperature: 2.0, or {kind: adakd_h}",
        )


@rule("PD132", Severity.ERROR, "bounds of the temperature are exchanged")
def temperature_bounds(recipe: Recipe) -> Iterator[Finding]:
    """An AdaKD temperature lies between minimum and maximum, so the first cannot be above the second."""
    temperature = recipe.objective.temperature
    if isinstance(temperature, AdaKDSpread | AdaKDEntropy) and temperature.minimum > temperature.maximum:
        yield Finding(
            "objective.temperature.minimum",
            f"minimum {temperature.minimum:g} is above maximum {temperature.maximum:g}",
            "exchange them",
        )


@rule("PD135", Severity.ERROR, "tail of a distribution that has none")
def sampled_has_no_tail(recipe: Recipe) -> Iterator[Finding]:
    """Sampling draws from the whole distribution (arXiv 2503.16870): nothing is cut off, so there is no mass for a
    ghost bucket or the label to take. Only top-p-top-k truncation has a tail."""
    tail = recipe.objective.tail
    if recipe.teacher is not None and isinstance(recipe.teacher.truncation, Sample) and tail != "renormalise":
        yield Finding(
            "objective.tail", f"tail is {tail}, and the truncation is sample, which cuts nothing off", "leave it out"
        )


@rule("PD137", Severity.ERROR, "loss that is infinite on a truncated target")
def reverse_needs_a_bucket(recipe: Recipe) -> Iterator[Finding]:
    """Reverse KLD, Σ q log(q/w), is infinite wherever the student gives any probability to what the target w rules
    out, and a student's softmax rules out nothing. Only with `tail: ghost`, one bucket for all that was cut off, is it
    finite; a sampled target has no such bucket."""
    if isinstance(recipe.objective.loss, ReverseKLD) and recipe.objective.tail != "ghost":
        yield Finding(
            "objective.loss.kind",
            f"the loss is reverse_kld and the tail {recipe.objective.tail}: the loss would be infinite",
            "tail: ghost with top-p-top-k truncation, or loss: {kind: jsd}, which is finite on every target",
        )


@rule("PD138", Severity.ERROR, "tail that a loss on logits cannot see")
def logits_have_no_tail(recipe: Recipe) -> Iterator[Finding]:
    """MSE on logits compares the logits of the kept tokens, each side less its mean over them. Mass that was cut off
    has no logit: neither a bucket nor what the label gains can be compared."""
    loss, tail = recipe.objective.loss, recipe.objective.tail
    if isinstance(loss, MSE) and loss.on == "logits" and tail != "renormalise":
        yield Finding("objective.tail", f"tail is {tail}, and the loss is mse on logits", "tail: renormalise")


@rule("PD139", Severity.ERROR, "loss that a sampled target biases")
def sampled_needs_a_linear_loss(recipe: Recipe) -> Iterator[Finding]:
    """A sampled target equals the teacher's distribution on average only, so the gradient does where it is linear in
    the target: nll, kld and mse on probabilities. JSD takes the logarithm of a mixture with the target, and its
    expectation over draws is another loss (arXiv 2503.16870 trains on nll)."""
    sampled = recipe.teacher is not None and isinstance(recipe.teacher.truncation, Sample)
    if sampled and isinstance(recipe.objective.loss, JSD):
        yield Finding("objective.loss.kind", "the loss is jsd, and the truncation is sample", "loss: {kind: kld}")


@rule("PD136", Severity.ERROR, "squared error on logits that are not stored")
def sampled_has_no_logits(recipe: Recipe) -> Iterator[Finding]:
    """MSE on logits compares the teacher's logits of the kept tokens. A sampled distribution holds how often a token
    was drawn, and no logits."""
    loss = recipe.objective.loss
    sampled = recipe.teacher is not None and isinstance(recipe.teacher.truncation, Sample)
    if sampled and isinstance(loss, MSE) and loss.on == "logits":
        yield Finding(
            "objective.loss.on", "mse on logits, and the truncation is sample, which keeps counts", "on: probabilities"
        )


@rule("PD166", Severity.WARNING, "few draws of each distribution")
def enough_draws(recipe: Recipe) -> Iterator[Finding]:
    """A sampled target is unbiased at any size, but noisy when small: Sparse Logit Sampling (arXiv 2503.16870) reaches
    2.35 nats with 12 ids, next to 2.34 of the full distribution; Gemma 2 and 3 draw 256."""
    truncation = recipe.teacher.truncation if recipe.teacher and distils(recipe) else None
    if isinstance(truncation, Sample) and truncation.draws < 12:
        yield Finding("teacher.truncation.draws", f"only {truncation.draws} draws of each distribution", "12 or more")


@rule("PD143", Severity.ERROR, "temperature of a sampled distribution")
def sampled_at_one(recipe: Recipe) -> Iterator[Finding]:
    """Counts of draws are unbiased for the teacher's distribution at τ=1, and for no other: a power of a count is no
    estimate of the power of a probability (the mean of √count is not √mean), and tokens that were not drawn stay at 0
    whatever τ says. With 50 draws τ=2 flattens the noise of the sample, not the teacher."""
    temperature = recipe.objective.temperature
    sampled = recipe.teacher is not None and isinstance(recipe.teacher.truncation, Sample)
    if sampled and distils(recipe) and temperature != 1:
        said = f"{temperature:g}" if isinstance(temperature, float) else temperature.kind
        yield Finding(
            "objective.temperature",
            f"temperature is {said}, and the truncation is sample, which holds counts of draws at τ=1",
            "temperature: 1.0, or truncation: {kind: topp_topk}",
        )


@rule("PD144", Severity.ERROR, "codec of a sampled distribution")
def sampled_has_its_codec(recipe: Recipe) -> Iterator[Finding]:
    """Counts of draws are stored exactly, by a codec of their own; the others store probabilities."""
    teacher = recipe.teacher
    if teacher is None or not isinstance(teacher.truncation, Sample) or isinstance(teacher.logits, LiveLogits):
        return
    if teacher.logits.codec is not None:
        yield Finding(
            "teacher.logits.codec",
            f"codec is {teacher.logits.codec}, and the truncation is sample, which is stored as exact counts",
            "leave it out",
        )


@rule("PD145", Severity.ERROR, "more learnt than is kept")
def kept_includes_learnt(recipe: Recipe) -> Iterator[Finding]:
    """A store serves any truncation inside its own: top_p and top_k at most those of `logits.keep`. What was cut off at
    capture is gone. A sample is fair only as a whole, so it is kept as it is drawn."""
    teacher = recipe.teacher
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
