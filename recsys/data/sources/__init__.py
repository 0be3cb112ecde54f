"""Sources: the files that make up a data set."""
