"""``odesteer generate``: the command, and generation with a receipt for each steerer."""
