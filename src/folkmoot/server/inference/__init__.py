"""Predictions: which files make up the model that is asked, what the sandbox is asked, what its answer says."""
