"""What a profile wants of the environment that a run is submitted from."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pdforge.errors import EnvironmentFault
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile


def missing_secrets(profile: Profile) -> list[str]:
    """Names of the profile's secrets that are not set here."""
    return [name for name in profile.secrets if not os.environ.get(name)]


def require_secrets(plans: Sequence[Plan]) -> None:
    """Refuse to submit what would lack a secret hours later.

    Raises:
        EnvironmentFault: one is not set; names it.
    """
    for plan in plans:
        if missing := missing_secrets(plan.profile):
            raise EnvironmentFault(
                f"profile {plan.profile.name!r} needs variables that are not set: {', '.join(missing)}",
                remedy=f"export {missing[0]}=… before submitting; the value is never written to a file",
            )
