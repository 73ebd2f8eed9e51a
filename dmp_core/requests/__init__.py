"""What a command asks for, turned into configurations: new datasets, imports of own images, predictions of files."""
