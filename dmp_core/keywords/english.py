"""English words: singular and plural, and a dataset's category names as plain words."""

from __future__ import annotations

import re
import unicodedata

# In `bakery/kitchen` the qualifier is the place and follows the name; in `museum/indoor` it describes and precedes it.
_QUALIFIERS_THAT_FOLLOW = frozenset(
    {"interior", "exterior", "kitchen", "shop", "door", "corridor", "platform", "backseat", "frontseat"}
    | {"massage_room", "mineral_bath", "bottle_storage", "barrel_storage"}
)
_IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "shelves": "shelf"}
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"))


def readable_keyword(keyword: str) -> str:
    """`athletic_field/indoor` → `indoor athletic field`; free text passes through, trimmed."""
    name, _, qualifier = keyword.strip().partition("/")
    if not qualifier or " " in keyword.strip():
        return " ".join(keyword.replace("_", " ").split())
    if qualifier.endswith(name):  # elevator/freight_elevator
        parts = [qualifier]
    elif name.endswith(qualifier):  # cloakroom/room
        parts = [name]
    else:
        parts = [name, qualifier] if qualifier in _QUALIFIERS_THAT_FOLLOW else [qualifier, name]
    return " ".join(" ".join(parts).replace("_", " ").split())


def is_free_text(phrase: str) -> bool:
    """A phrase that already reads as a caption, as against the name of a place."""
    return phrase.lower().startswith(("a ", "an ", "the ")) or bool(
        re.search(r",|\b(of|at|in|on|with|by|under|painting|drawing|style)\b", phrase.lower())
    )


def without_accents(text: str) -> str:
    """In lower case, each letter without its marks: `Café` → `cafe`."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


def singular(word: str) -> str:
    """One form for singular and plural, British and American spelling."""
    word = _IRREGULAR.get(word, word)
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            word = word.removesuffix(ending) + instead
            break
    else:
        word = word.removesuffix("s") if is_plural(word) and len(word) >= 4 else word
    return re.sub(r"tre$", "ter", re.sub(r"our$", "or", word))


def is_plural(word: str) -> bool:
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def plural(noun: str) -> str:
    """English plural of the last word."""
    if noun.endswith("shelf"):
        return noun[:-1] + "ves"
    if noun.endswith("person"):
        return noun[: -len("person")] + "people"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def has_word(text: str, word: str) -> bool:
    """Whether `word` (one or several) is in `text` as whole words, singular or plural."""
    return re.search(rf"\b{re.escape(word)}s?\b", text) is not None
