"""What crosses the wire, for both sides."""
