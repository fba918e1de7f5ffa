"""Running the cells of a study: stored by content, skipped when stored, spread over worker processes."""
