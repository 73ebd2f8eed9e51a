"""DMP Pipeline: keywords in, a labelled dataset and a dense predictor out."""
