"""Profiles of people in words: written, tried on a person's judgements, and kept from quoting the question."""
