"""Data as training and evaluation read them: splits, interactions, processed data, negatives."""
