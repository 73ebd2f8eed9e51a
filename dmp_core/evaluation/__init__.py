"""Scores of predictions against labels: metrics, the paper's protocol, colour codes of classes.

What belongs here: functions of arrays and tensors that measure, and the tables made of them.
No model, no file of a dataset. Submodules are imported by name (``from dmp_core.evaluation import
metrics``), so that torch is only imported where needed.
"""
