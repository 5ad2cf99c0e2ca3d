"""Measures Tandem next to its peers: see `benches/compare`."""
