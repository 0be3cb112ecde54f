"""Settings of the work that every peer does.

Every peer's environment imports this module, so it may only need the standard library.
"""

DIM = 16
"""Embedding width of the NeuMF in training, ranking and sampling."""
TOWER = (32, 16, 8)
"""Widths of its hidden layers; their input is the 2 x 16 values of the two embeddings."""
N_NEGATIVES = 4
"""Negatives per positive."""
POSITIVES = 2048
"""Positives per step in the search."""
TRIALS = 12
EPOCHS = 8
"""Epochs of a trial at most."""
CONCURRENT = 2
"""Trials at a time, one on each core, if the peer can."""
DIMS = (8, 16, 32, 64)
"""Embedding widths of the search."""
LEARNING_RATES = (1e-4, 3e-2)
"""Lowest and highest learning rate of the search, on a logarithmic scale."""
SPLITS = ("train", "validation", "test")
"""Splits that all peers get, in files SPLIT.csv with the columns user_id and item_id."""
