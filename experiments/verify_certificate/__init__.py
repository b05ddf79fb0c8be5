"""Everything that a certified run says, checked again."""
