"""Reads artefacts as samples, for stages that use each other's output."""
