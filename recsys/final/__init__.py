"""Final training: the chosen config, trained with one or more seeds, scored on test and saved.

Or an ensemble of several trials. In the order of the flow:
    choose      choice of a trial of a study, or of several
    run         the train command: all the steps
    seeds       one training per seed, on the data of a split
    ensemble    the train command for an ensemble: all the steps
    members     trainings of candidates and of members
    selection   greedy selection of the members
    placement   the nodes that the trainings run on
    train       one training, and its scores
    log         runs in MLflow, and the file that lists every scoring of test
    evaluate    the evaluate command: scores of a saved model on test
"""
