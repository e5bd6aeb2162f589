"""Files, catalogue and table of one cache folder. Knows no network and no policy."""
