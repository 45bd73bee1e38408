"""HTTP API: the app, schemas, routes, errors, middleware and metrics."""
