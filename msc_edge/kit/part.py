"""What all parts of manifest.json have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0, lt=2**31)]


class Part(BaseModel):
    """Base of all parts of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
