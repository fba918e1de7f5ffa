"""New people: which method serves them best after a few answers, and which question to ask next."""
