"""The commands of ``odesteer``, one file or folder each."""
