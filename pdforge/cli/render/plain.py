"""Text that a file or a user wrote, made safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` in one line without control characters: what a file holds must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def plural(count: int, noun: str) -> str:
    """`no errors`, `1 error`, `2 errors`."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
