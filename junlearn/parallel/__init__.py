"""Members, shards and processes: one program on many devices."""
