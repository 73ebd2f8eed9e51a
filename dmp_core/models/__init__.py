"""Models: where weights come from, and the small prior that this project trains itself.

What may live here: the registry of pinned weights, download and checksums (`shipped`), and `prior`,
the recipe of the mini prior. Nothing here knows of stages.
"""
