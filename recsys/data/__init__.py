"""From ratings to interactions, splits and negatives."""
