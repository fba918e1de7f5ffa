"""Studies behind the documentation: P-GRPO on bandits, slow risks, best of n, hidden disagreement."""
