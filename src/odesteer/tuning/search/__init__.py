"""The search over settings: grid, successive halving, results, checkpoint."""
