"""Trainings: their rounds, and every change of their state."""
