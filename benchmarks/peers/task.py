"""The work that everyone is asked to do. Imports the standard library alone: it is read in every peer's environment."""

DIM = 16
"""Embedding width of the NeuMF that is trained, ranked with and sampled for."""
TOWER = (32, 16, 8)
"""Widths of its hidden layers, behind the 2 x 16 values of the two embeddings."""
N_NEGATIVES = 4
"""Negatives a positive."""
POSITIVES = 2048
"""Positives a step in the search."""
TRIALS = 12
EPOCHS = 8
"""Epochs of a trial at most."""
CONCURRENT = 2
"""Trials at a time, one on each core, where a peer can."""
DIMS = (8, 16, 32, 64)
"""Embedding widths of the search."""
LEARNING_RATES = (1e-4, 3e-2)
"""Lowest and highest learning rate of the search, on a logarithmic scale."""
PARTS = ("train", "validation", "test")
"""The split that all are given, in files PART.csv with the columns user_id and item_id."""
