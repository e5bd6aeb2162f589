"""Stands in for the SDK's package."""
