"""`scenes`: a procedural set of rooms and outdoor views with every label the pipeline needs."""
