"""Making a language model forget facts."""
