"""Readers of text and Parquet files, which yield batches of rows of one form."""
