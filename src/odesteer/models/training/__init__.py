"""Training barriers end to end, through the frozen layers above the steered one."""
