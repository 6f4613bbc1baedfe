"""Types and checks that all parts of the schema share."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Names = Literal["*"] | list[Name]


class Part(BaseModel):
    """A part of the study file. Unknown keys are errors; values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    renamed: ClassVar[dict[str, str]] = {}  # former key -> its name today, for the error message


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, whose content cannot change."""
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def exactly_one(part: Part, *keys: str) -> Part:
    """Raise unless exactly one of the keys is set."""
    given = [key for key in keys if getattr(part, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)}" + (f", not {' and '.join(given)}" if given else ""))
    return part


def pinned(part: Part) -> Part:
    """Raise where a hub id has no revision, or a revision no hub id."""
    if (part.hub is None) != (part.revision is None):
        raise ValueError("hub and revision belong together: pin the commit that you use")
    return part


class Template(Part):
    """The text around instruction and response (default: the paper's)."""

    prompt: str = Field("###Question: {instruction}\n###Answer:", description="Prompt; it does not contribute to the loss.")
    response: str = Field(" {response}", description="Response; the loss is on it and on the EOS that follows it.")

    @model_validator(mode="after")
    def _placeholders(self):
        if self.prompt.count("{instruction}") != 1 or self.response.count("{response}") != 1:
            raise ValueError("prompt needs {instruction} once and response needs {response} once")
        return self
