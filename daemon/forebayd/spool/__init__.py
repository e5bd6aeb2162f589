"""Acknowledged writes that are not yet in their origin: the journal, the order, the uploads."""
