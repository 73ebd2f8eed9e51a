"""Where images come from: the built-in renderer, diffusion models, and folders of your own."""
