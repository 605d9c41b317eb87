"""How a conversation becomes text: what plans and jobs say of it."""

from pydantic import BaseModel, ConfigDict


class ChatFormat(BaseModel):
    """A chat template with the tokens that it may name."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    template: str
    """Jinja, as transformers has it: it sees `messages`, `add_generation_prompt`, `bos_token` and `eos_token`."""
    bos: str
    eos: str
