"""Messages to participants: long poll and push."""
