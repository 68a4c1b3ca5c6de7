"""Does the pipeline find what is known to be there? The real stages on a planted backbone."""
