"""The study on disk: its folder, the record of its trials, its lease and its upload to S3.

`study_folder` creates, reads and resumes a study; `study_record` says what happened in it.
"""
