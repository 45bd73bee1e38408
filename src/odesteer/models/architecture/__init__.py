"""Hugging Face models: loading, decoder layers, attention heads, sites, hooks, KV caches."""
