"""Plans that were saved for review: what is submitted is what was reviewed, or the difference is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pdforge.errors import UsageError
from pdforge.launch.snapshot import content_hash, package_files
from pdforge.layout import last_plan, read_json, saved_plan, write_atomically, write_json
from pdforge.plan.model import Plan

_MOST_LINES = 12


class SavedPlan(BaseModel):
    """What `pdforge plan --out` leaves, and how to make it again."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    """Name of a gallery recipe, or absolute path of a file."""
    variants: list[str]
    overrides: list[str]
    cluster: str
    processes: int | None
    root: str
    code: str
    """Hash of the pdforge package that made it."""
    plans: list[Plan]


def code_now() -> str:
    """Hash of the pdforge package that is running."""
    return content_hash(package_files())


def save(plan: SavedPlan, folder: Path) -> Path:
    """Write the plan into the folder, and note below its storage root that it is the last one."""
    file = saved_plan(folder.absolute())
    write_atomically(file, plan.model_dump_json(indent=1) + "\n")
    write_json(last_plan(Path(plan.root)), str(folder.absolute()))
    return file


def find_saved(target: str) -> SavedPlan | None:
    """The saved plan in the folder `target`; None where there is none.

    Raises:
        UsageError: another version of pdforge wrote it.
    """
    file = saved_plan(Path(target))
    if not file.is_file():
        return None
    try:
        return SavedPlan.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{file} is damaged or of another version of pdforge", remedy="plan again") from error


def last_saved(roots: Sequence[Path]) -> str:
    """The folder of the plan that was saved last for one of these storage roots.

    Raises:
        UsageError: there is none.
    """
    notes = [note for root in dict.fromkeys(roots) if (note := last_plan(root)).is_file()]
    for folder in map(read_json, sorted(notes, key=lambda note: note.stat().st_mtime, reverse=True)):
        if isinstance(folder, str) and saved_plan(Path(folder)).is_file():
            return folder
    raise UsageError(
        f"no recipe is named, and no plan was saved for {' or '.join(map(str, dict.fromkeys(roots)))}",
        remedy="name a recipe, or save a plan: `pdforge plan RECIPE --out DIR`",
    )


def drift(saved: SavedPlan, plans: Sequence[Plan]) -> list[str]:
    """What differs between a saved plan and the same planned now: the code, then fields of recipe and profile, then
    those that follow from them.
    """
    before, after = _fields(saved.plans), _fields(plans)
    places = [place for place in dict.fromkeys([*before, *after]) if before.get(place) != after.get(place)]
    places.sort(key=lambda place: {"recipe", "profile"}.isdisjoint(place.split(".")[:2]))
    lines = [f"{place}: {before.get(place, 'absent')} → {after.get(place, 'absent')}" for place in places]
    if saved.code != (code := code_now()):
        lines.insert(0, f"pdforge's code: {saved.code} → {code}")
    return [*lines[:_MOST_LINES], *([f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])]


def _fields(plans: Sequence[Plan]) -> dict[str, str]:
    """Every field of the plans, by its place; of several, below the name of the variant."""
    fields: dict[str, str] = {}
    for plan in plans:
        fields.update(_leaves(plan.model_dump(mode="json"), (plan.variant or plan.name) if len(plans) > 1 else ""))
    return fields


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, repr(value)
