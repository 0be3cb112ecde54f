"""Final training: the chosen config, trained with one or more seeds, scored on test and saved.

In the order of the flow:
    choose      choice of a trial of a study
    run         the train command: all the steps
    seeds       one training per seed, on the data of a split
    placement   the nodes that the trainings run on
    train       one training, and its scores
    log         runs in MLflow, and the file that lists every scoring of test
    evaluate    the evaluate command: scores of a saved model on test
"""
