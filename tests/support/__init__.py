"""Helpers of the tests: real servers that misbehave on demand, builders, clocks."""
