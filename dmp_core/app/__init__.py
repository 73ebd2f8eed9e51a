"""`dmp app`: a page to predict on your own images, and to look through datasets and predictions and reject samples.

What is shown is computed by plain functions of arrays and records; only `page`, `predict_tab` and `browse_tab` know
Gradio, and importing anything else here does not load it.
"""
