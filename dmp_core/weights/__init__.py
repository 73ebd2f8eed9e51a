"""Where weights come from: `registry`, `download`, `resolve` (setting → place), `load` (place → network)."""
