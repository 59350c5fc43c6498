"""Uploads in chunks, which go on where they were after a line has broken."""
