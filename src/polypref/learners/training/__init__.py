"""Gradient training shared by the learners: descent with early stopping, episodes, and networks."""
