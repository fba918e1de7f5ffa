"""A server's scorer is fitted anew from its store, compared with the one in force, and replaced."""
