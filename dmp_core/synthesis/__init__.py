"""Where images come from: the built-in renderer and diffusion models."""
