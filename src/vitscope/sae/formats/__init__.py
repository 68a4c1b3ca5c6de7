"""SAEs of other projects: one reader a format, one internal form, and the way back out."""
