"""The HTTP face: viewsets, serializers, permissions, errors, routes."""
