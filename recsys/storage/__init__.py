"""Storage: files on disk and in S3, databases by URL, and their passwords."""
