"""Files to comparisons: reading, linting, splitting, simulated worlds."""
