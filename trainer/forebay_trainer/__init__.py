"""Training on plain torch, every byte in and out through :mod:`forebay`. Needs forebay[trainer]."""
