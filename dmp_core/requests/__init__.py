"""Commands' requests as configurations: new datasets, imports of your own images, predictions of files."""
