"""Names that settings and code share. No imports of ours, so that either may have them."""

from typing import Annotated, Literal

from pydantic import Field

Precision = Literal["float32", "float16", "bfloat16"]
"""Of weights and activations."""
Prediction = Literal["x", "y", "v"]
"""What the network predicts: the image, the label, or their velocity (section 3.2)."""
Source = Literal["oracle", "estimated"]
"""Where x comes from at a step of the sampler (eq. 4)."""
Spacing = Literal["leading", "trailing", "linspace"]
"""How a sampler's timesteps are chosen, by diffusers' names."""
Fraction = Annotated[float, Field(ge=0, le=1)]
