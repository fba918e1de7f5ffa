"""The mixed-effects Bradley-Terry solver behind pooled, individual and hierarchical. No method stands here."""
