"""The results of an evaluation in the card of the exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pdforge.layout import write_atomically

CARD = "README.md"
_HEADING, _NEXT = "## Results\n", "## Recipe\n"


def add_to_card(card: Path, results: dict[str, Any]) -> None:
    """Write the results of `evaluate` into the card, in place of what it said before."""
    text = card.read_text(encoding="utf-8")
    before, _, after = text.partition(_NEXT)
    before = before.partition(_HEADING)[0].rstrip()
    write_atomically(card, f"{before}\n\n{_HEADING}\n{_table(results)}\n\n{_NEXT}{after}")


def _table(results: dict[str, Any]) -> str:
    rows = [
        ("held-out loss", f"{results['heldout_loss']:.4f} nats a token"),
        ("expected calibration error", f"{results['ece']:.4f}"),
    ]
    if "answer_loss" in results:
        rows.append(("loss of held-out answers", f"{results['answer_loss']:.4f} nats a token"))
    for name, row in results["tasks"].items():
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
        rows.append(
            (name, f"{row['value']:.4f}{error} ({row['metric'].partition(',')[0]}, {row['samples']:,} examples)")
        )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
