"""Experiments in use: does personalization serve people better? Now the simulator of a system in use."""
