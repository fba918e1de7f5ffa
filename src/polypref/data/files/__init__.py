"""From paths given by a user to batches of raw rows: JSONL, CSV, Parquet, compressed files, hub paths."""
