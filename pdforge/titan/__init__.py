"""The only package that imports torchtitan; everything a compiled training module needs is importable from here."""

from pdforge.titan.cpu import prepare as _prepare

# before anything imports torchtitan's trainer
_prepare()

from pdforge.titan.checkpoints import StageCheckpoints  # noqa: E402
from pdforge.titan.heldout import HeldOutLoss  # noqa: E402
from pdforge.titan.live import LiveTeacher  # noqa: E402
from pdforge.titan.loader import PackedTokens, StoreLoader  # noqa: E402
from pdforge.titan.loss import DistillationLoss  # noqa: E402
from pdforge.titan.metrics import StageMetrics  # noqa: E402
from pdforge.titan.models import decoder  # noqa: E402
from pdforge.titan.online import CapturingLoss  # noqa: E402
from pdforge.titan.trainer import DistillTrainer  # noqa: E402

__all__ = [
    "CapturingLoss",
    "DistillTrainer",
    "DistillationLoss",
    "HeldOutLoss",
    "LiveTeacher",
    "PackedTokens",
    "StageCheckpoints",
    "StageMetrics",
    "StoreLoader",
    "decoder",
]
