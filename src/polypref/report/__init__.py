"""Self-contained HTML report: template and figures; computes nothing."""
