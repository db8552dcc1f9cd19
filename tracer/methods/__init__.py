"""How Tensor gets its methods, and the functions and methods that are made of others."""
