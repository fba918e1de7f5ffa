"""What is wrong with a set of judgements: checks, biases, leaking prompts, and rows that cannot be read."""
