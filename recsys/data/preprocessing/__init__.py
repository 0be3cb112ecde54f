"""Preprocessing: from the files of a source to the processed data, as Ray Data work."""
