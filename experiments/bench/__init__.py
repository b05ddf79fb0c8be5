"""Speed, measured against the same work in other frameworks."""
