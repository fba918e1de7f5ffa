"""Running the cells of a study: stored by content, skipped if stored, spread over worker processes."""
