"""The methods that are compared; DMP is one of them, the others are those of the paper (Tables 1-3).

What belongs here: one folder per method, the protocol they all follow (`protocol`), their list (`registry`), and what
several of them share (`shared`). Arrays and folders in, arrays out: nothing here depends on shards, stages or the
command line.

Import the modules by name; this package imports none of them, since most need torch.
"""
