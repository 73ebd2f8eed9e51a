"""Comparisons and ablations: variants of one configuration, run over one workspace, side by side in tables and figures.

What may live here: what an experiment is (`settings`), which artefacts it asks for (`planning`), its results as one
table of numbers (`collect`), and what is made of them: the paper's tables (`tables`) and figures (`figures`), written
by `outputs`. Runs nothing itself; whoever runs nodes is handed in.

Import the modules by name: plots and data frames are heavy, planning is not.
"""
