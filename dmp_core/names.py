"""Names that settings and code share. Imports nothing of this package, so that both can import it."""

from typing import Annotated, Literal

from pydantic import Field

Precision = Literal["float32", "float16", "bfloat16"]
"""Number format of weights and activations."""
Prediction = Literal["x", "y", "v"]
"""What the network predicts: the image, the label, or their velocity (section 3.2)."""
Source = Literal["oracle", "estimated"]
"""Source of x at a step of the sampler (eq. 4)."""
Spacing = Literal["leading", "trailing", "linspace"]
"""Spacing of a sampler's timesteps, by diffusers' names."""
Fraction = Annotated[float, Field(ge=0, le=1)]
