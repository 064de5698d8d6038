"""The part that learns: features, nets, training, prediction, export. Knows no HTTP and no SQL."""
