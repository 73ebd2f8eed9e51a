"""Where images come from: the built-in renderer and diffusion models."""

PROVIDES = ("normal", "depth", "segmentation", "albedo", "shading")
"""Modalities that rendered images come with exact labels of. Here, since loading the renderer takes a while."""
CLASS_IDS = "segmentation"
"""That of them which names what is in the picture."""
