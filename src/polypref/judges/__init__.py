"""Language models as judges: which of two answers a person would prefer, by log-probabilities."""
