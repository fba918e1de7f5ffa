"""The routes that are no client's wire format: people, feedback, questions, the page, operators."""
