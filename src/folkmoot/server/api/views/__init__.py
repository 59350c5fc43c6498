"""The viewsets: permission, serializer, one call, response."""
