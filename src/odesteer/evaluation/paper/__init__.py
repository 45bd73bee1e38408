"""The experiments of arXiv 2602.17560: models, settings, published figures, runs beside them."""
