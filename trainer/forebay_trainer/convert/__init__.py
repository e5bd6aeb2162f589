"""Data sets from their own formats into those that are trained with."""
