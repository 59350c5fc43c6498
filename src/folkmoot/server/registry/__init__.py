"""Models, their checkpoints and their metrics."""
