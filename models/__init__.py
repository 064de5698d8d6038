"""Everything that learns and predicts: tables to arrays, nets, training, prediction, export.

Each package imports only packages below it:

    training    export
    engine      predict    evaluation
    nets
    features
    data  checkpoint
    errors  failpoints

Only `nets.architectures`, `engine`, `training`, `export.reference` and `export.standalone` load
torch. Nothing here knows HTTP, SQL, queues or the service.
"""
