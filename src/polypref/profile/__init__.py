"""What the data themselves say, before any learner: disagreement, consistency, minorities, room, social choice."""
