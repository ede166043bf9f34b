"""What all parts of a recipe share: strict numbers, and models without unknown keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt

Int = StrictInt
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
PositiveInt = Annotated[StrictInt, Field(ge=1)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Probability100 = Annotated[float, Field(strict=True, ge=0, le=100)]
ImageSize = tuple[Annotated[StrictInt, Field(ge=8, le=4096)], Annotated[StrictInt, Field(ge=8, le=4096)]]
ThreeFloats = tuple[Float, Float, Float]


class Settings(BaseModel):
    """Base of all parts of a recipe: no unknown keys, no changes after the checks."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
