"""What a server keeps of people: one contract (``contract``), two databases, and encryption around either."""
