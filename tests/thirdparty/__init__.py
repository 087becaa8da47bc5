"""Tools of others judge what this product writes: they share no line of code with it."""
