"""What a keyword means: the family of places that captions speak of and scenes show, and the English around it.

What may live here: plain text and the vocabulary. `prompts` and `render` both ask here, so that a caption and its image
agree; `former` records what older versions made of a keyword.
"""
