"""Units and currency signs around a number, and when they may be left out.

A percent sign is a unit like any other: 50% is 50, and not 0.5. MATH's own grader
drops it too (arXiv:2103.03874), its questions ask "what percent".
"""

import re

_PREFIX = re.compile(r'(-?)\s*"([$€£])"\s*')
_SUFFIX = re.compile(r'\s*"([^"]*)"\s*(?:\^\s*\{?\s*([23])\s*\}?)?$')
_WORDS = re.compile(r"(-?[\d.,/ ]*\d)\s*((?: ?/?[A-Za-z][A-Za-z/]+\.?){1,4}\d?)$")
# Words after a number that make it another number, or no answer at all.
_NOT_UNITS = re.compile(
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|dozens?|hal(?:f|ves)"
    r"|thirds?|quarters?|fourths?|fifths?|tenths?|(?:hundred|thousand)ths?|and|or|not"
    r"|over|plus|minus|times|squared|cubed|sqrt|root|factorial|to|mod|base|if|with"
    r"|remainder|but|than|is|are|was|pi|two|three|four|five|six|seven|eight|nine|ten)\b"
)
_SAME = {
    **dict.fromkeys(("dollar", "usd", "buck"), "$"),
    **dict.fromkeys(("euro", "eur"), "€"),
    **dict.fromkeys(("pound sterling", "gbp"), "£"),
    **dict.fromkeys(("percent", "per cent", "percentage point"), "%"),
    **dict.fromkeys(("cent",), "¢"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("inche", "inch"), "in"),
    **dict.fromkeys(("feet", "foot"), "ft"),
    **dict.fromkeys(("gram",), "g"),
    **dict.fromkeys(("kilogram",), "kg"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("minute", "mins"), "min"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict.fromkeys(("liter", "litre"), "l"),
}


def split_unit(text: str) -> tuple[str, str]:
    """A `notation.plain` text without its unit, and the unit; "" if it has none.

    Quoted text may follow any expression, bare words only a number.
    """
    unit = ""
    if prefix := _PREFIX.match(text):
        unit, text = prefix[2], prefix[1] + text[prefix.end() :]
    suffix = _SUFFIX.search(text)
    if suffix and suffix.start() > 0:
        if _NOT_UNITS.search(suffix[1].lower()):
            return text, unit
        return text[: suffix.start()].rstrip(), _name(suffix[1], suffix[2]) or unit
    words = _WORDS.match(text)
    if words and not _NOT_UNITS.search(words[2].lower()):
        power = words[2][-1] if words[2][-1].isdecimal() else None
        return words[1], _name(words[2].rstrip("0123456789"), power)
    return text, unit


def agree(a: str, b: str) -> bool:
    """Whether two units are the same or one was left out."""
    return not a or not b or a == b


def _name(text: str, power: str | None) -> str:
    words = text.lower().replace(".", " ").strip()
    for word, exponent in (("square ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if words.startswith(word):
            words, power = words.removeprefix(word), exponent
    if words in ("", "unit", "units"):
        return ""
    singular = words[:-1] if len(words) > 2 and words.endswith("s") else words
    return _SAME.get(words, _SAME.get(singular, singular)) + (power or "")
