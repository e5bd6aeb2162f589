"""Where bytes come from. Knows networks and drivers; knows nothing of caching."""
