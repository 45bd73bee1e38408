"""Output that commands share: screen, text, paths, descriptions of steerers."""
