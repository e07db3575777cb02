"""What a model can do: losses and exact match on held-out examples."""
