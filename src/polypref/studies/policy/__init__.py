"""When does P-GRPO beat GRPO? Bandits and a tiny language model whose truth is known."""
