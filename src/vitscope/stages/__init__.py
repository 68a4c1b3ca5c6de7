"""One file a stage: from artifacts to artifacts, by way of the folders below."""
