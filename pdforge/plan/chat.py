"""The chat format of a fine-tuning: the recipe's template or the tokenizer's, tried out before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pdforge.chat import ChatTemplate, Message
from pdforge.errors import EnvironmentFault, UsageError
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import Finetune, PretrainedTokenizer, TrainedTokenizer

_TEMPLATE_FILE = "chat_template.jinja"
_CONFIG_FILE = "tokenizer_config.json"

_PROBE: list[Message] = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
]


def chat_format(finetune: Finetune, tokenizer: TrainedTokenizer | PretrainedTokenizer) -> ChatFormat:
    """The format that conversations are written in.

    Raises:
        UsageError: there is no template, or it is one that answers cannot be told apart in.
        EnvironmentFault: the tokenizer's files cannot be read.
    """
    settings = _settings(tokenizer)
    template = finetune.template or settings.get("template")
    if template is None:
        raise UsageError(
            "finetune.template: the tokenizer has no chat template",
            remedy="write one: finetune.template (Jinja; docs/finetune.md has an example)",
        )
    chat = ChatFormat(
        template=template,
        bos=settings.get("bos_token") or tokenizer.separator,
        eos=settings.get("eos_token") or tokenizer.separator,
    )
    try:
        list(ChatTemplate(chat).segments(_PROBE))
    except UsageError as error:
        raise UsageError(f"finetune.template: {error.message}", remedy=error.remedy) from error
    return chat


def _settings(tokenizer: TrainedTokenizer | PretrainedTokenizer) -> dict[str, str]:
    """Template and special tokens of a tokenizer in a local folder; of another nothing is known."""
    path = Path(tokenizer.path) if isinstance(tokenizer, PretrainedTokenizer) else None
    if path is None or not path.exists():
        return {}
    folder = path if path.is_dir() else path.parent
    file = folder / _CONFIG_FILE
    try:
        config = json.loads(file.read_bytes()) if file.is_file() else {}
        found = {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
        found["template"] = _template(config.get("chat_template"))
        if (folder / _TEMPLATE_FILE).is_file():
            found["template"] = (folder / _TEMPLATE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError, AttributeError) as error:
        raise EnvironmentFault(
            f"data.tokenizer.path: cannot read {file}: {error}", remedy="fetch the tokenizer again"
        ) from error
    return {name: value for name, value in found.items() if value}


def _token(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _template(value: Any) -> str | None:
    """Of several templates the one named `default`."""
    if isinstance(value, list):
        return next((one.get("template") for one in value if one.get("name") == "default"), None)
    return value if isinstance(value, str) else None
