"""Values that travel: `packing` writes one file in the form of `packs`, `trusting` looks at what somebody else stored and signs it anew,
`rows` adds it to the catalog.
"""
