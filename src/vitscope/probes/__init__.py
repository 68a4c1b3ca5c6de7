"""What can be read off tokens: linear probes over cached features, and zero-shot by text."""
