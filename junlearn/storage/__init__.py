"""What is kept on disk: whole, verified, or refused."""
