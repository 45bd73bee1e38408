"""How the terrarium's language model is made; `scripts/train_terrarium.py` runs it."""
