"""Everything that learns and predicts: tables to arrays, nets, training, prediction, export.

Each package imports only packages below it:

    training    export
    engine      predict
    model
    nets
    features
    data  checkpoint
    errors  failpoints

and `architectures` with `nets.graph`, which even the client imports. Only `nets.module`,
`nets.dropout`, `engine`, `training`, `predict.reference` and `export.standalone` load torch.
Nothing here knows HTTP, SQL, queues or the service.
"""
