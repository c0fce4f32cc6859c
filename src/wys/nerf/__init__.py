"""A neural radiance field in plain PyTorch, with a relevance field beside density and colour."""
