"""polypref: learn, measure and serve the preferences of many different people instead of one average person."""

__version__ = "0.1.0"
