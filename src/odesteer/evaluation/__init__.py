"""Benchmarks of steering quality (``odesteer bench``): suites, judges, metrics, runner, report."""
