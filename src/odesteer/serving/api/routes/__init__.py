"""Routes: completions, models and steerers, health and metrics."""
