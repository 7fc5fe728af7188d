"""Many short trainings to find the settings of a long one."""
