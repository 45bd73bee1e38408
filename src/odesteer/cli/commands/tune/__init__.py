"""``odesteer tune``: the command, the parsing of candidates, its report and files."""
