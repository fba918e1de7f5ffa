"""The mixed-effects Bradley-Terry solver behind pooled, individual and hierarchical. It contains no method itself."""
