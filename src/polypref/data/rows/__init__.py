"""From raw rows of any layout to one canonical frame of comparisons."""
