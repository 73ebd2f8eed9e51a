"""Comparisons and ablations: variants of one configuration, run over one workspace, side by side in tables and figures.

This package defines an experiment (`settings`), its artefacts (`planning`), its results as one table of numbers
(`collect`), the paper's tables (`tables`) and figures (`figures`) made from them, and writes these (`outputs`). It
runs nothing itself; the function that runs nodes is a parameter.

Import the modules by name: plots and data frames are heavy, planning is not.
"""
