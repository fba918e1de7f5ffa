"""What a reward likes, in words: traits with intervals, from texts that contrast them; no language model."""

from polypref.traits.describe import Described, Trait, describe, describe_group

__all__ = ["Described", "Trait", "describe", "describe_group"]
