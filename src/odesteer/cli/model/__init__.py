"""The model that a command works on: opening it, and where it runs (this process or Ray)."""
