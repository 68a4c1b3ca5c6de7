"""A backbone whose truth is known: tokens are known sparse mixtures of unit atoms plus noise."""
