"""Sources: the files that make up a data set, and where they are found."""
