"""Objectives that settings are selected by: likelihood margin, judged texts, trained judge."""
