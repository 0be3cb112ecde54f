"""Readers: rows of text and Parquet files, in one form for all formats."""
