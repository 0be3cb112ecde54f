"""The trials of a study under Ray Tune."""
