"""Artefacts as samples: what stages read of each other's output."""
