"""Sources of images: the built-in renderer, diffusion models, and your own folders."""

PROVIDES = ("normal", "depth", "segmentation", "albedo", "shading")
"""Modalities for which the renderer gives exact labels. Defined here, since loading the renderer takes a while."""
CLASS_IDS = "segmentation"
"""The one of them that names the objects in the image."""
