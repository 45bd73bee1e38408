"""``odesteer bench``: the command, the parsing of its options, its report on the screen."""
