"""``odesteer demo``: the command, the trial of one world, the timing, the plot."""
