"""Text to vectors: the Encoder protocol, the encoders, and the on-disk cache."""
