"""The database, the blob store and the references between them. Knows no noun of the service."""
