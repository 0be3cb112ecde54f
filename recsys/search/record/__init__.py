"""The study on disk: its folder, the record of its trials, its lease and its upload to S3.

- `study_folder` creates, reads and resumes a study; start here.
- `study_record` stores and returns what happens in it; `summaries` sums up and ranks its trials.
- `trial_attributes` are stored with the study, since an ended trial takes none.
- `origin` is what a study was created with besides its config and space.
- `optuna_storage` opens the storage of the record: SQLite, a `journal`, or a database, of which
  `write_through` keeps a copy in memory.
- `lease` lets one driver at a time write a study; `lease_stores` are its file and its S3 object.
- `uploads` uploads the record and the outbox to S3 as they are written.
"""
