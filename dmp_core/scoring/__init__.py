"""Scores of predictions: the metrics per modality, blind predictors, tables of scores."""
