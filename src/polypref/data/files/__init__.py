"""From paths that a user types to batches of raw rows: JSONL, CSV, Parquet, compressed files, hub paths."""
