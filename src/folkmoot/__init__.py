"""Folkmoot: a federated-learning hub."""
