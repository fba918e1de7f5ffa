"""From files to comparisons: reading, linting, splitting, benchmarks, published sets."""
