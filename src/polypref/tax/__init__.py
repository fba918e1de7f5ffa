"""The personalization tax: what general ability a personalized reward loses."""
