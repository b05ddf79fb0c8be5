"""What a product with a Hessian costs, and an exact diagonal Fisher."""
