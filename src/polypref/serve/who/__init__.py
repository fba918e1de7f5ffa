"""Who asks: API keys, signed tokens, and every other way in which clients can name a person."""
