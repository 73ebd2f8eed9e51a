"""Scores of predictions: which metrics there are per modality, blind predictors, tables of scores."""
