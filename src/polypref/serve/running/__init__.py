"""The process around the application: server, workers, limits, log and metrics."""
