"""Finished datasets in other tools' formats: one file per format, and a registry."""
