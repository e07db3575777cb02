r"""One spelling for what LaTeX, Unicode and plain text write in many ways.

After `plain`, `\frac`, `\sqrt` and `\overline` are the only commands that the
expression parser knows besides Greek letters; text, units, percent and currency
signs stand in double quotes; set braces are the characters U+2983 and U+2984.
"""
# ruff: noqa: RUF001 (look-alike characters are what this is about)

import re
import unicodedata

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–‒—﹣", "-"),
        **dict.fromkeys("×·⋅∙∗", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("“”„", '"'),
        "√": r"\sqrt ",
        "∅": r"\emptyset ",
        "\u00a0": " ",
    }
)
_COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"),
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    **dict.fromkeys(("le", "leq", "leqslant"), "≤"),
    **dict.fromkeys(("ge", "geq", "geqslant"), "≥"),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("quad", "qquad"), " "),
    **dict.fromkeys(("displaystyle", "textstyle", "limits", "boxed"), ""),
    **dict.fromkeys(("varnothing",), r"\emptyset "),
    **{"lbrace": "⦃", "rbrace": "⦄", "degree": '"degrees"'},
    **{"div": "/", "lt": "<", "gt": ">", "pi": "π", "infty": "∞", "cup": "∪"},
    **{"pm": "±", "in": "∈", "dots": "...", "ldots": "...", "cdots": "..."},
}
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|normal)?|mbox|hbox|math(?:rm|bf|it|sf)|operatorname)"
    r"\s*\{([^{}]*)\}"
)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_EXPLICIT_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\s*\\!\s*|\\[,; ])(?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!,?\d)")
_OPEN, _CLOSE = "([⦃", ")]⦄"

# Applied in this order.
_REWRITES = [
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?"), ""),
    (re.compile(r"\\[,;:! ]|~"), " "),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°"), ' "degrees"'),
    (re.compile(r"\\?%"), ' "%"'),
    (re.compile(r"\\[()\[\]]"), ""),  # delimiters of mathematics, as is $
    (re.compile(r"(?<!\\)\$"), ""),
    (re.compile(r"\\\$"), '"$"'),
    (re.compile("([€£])"), r'"\1"'),
    (re.compile(r"\\\{"), "⦃"),
    (re.compile(r"\\\}"), "⦄"),
    (re.compile(r"\\([A-Za-z]+)"), lambda m: _COMMANDS.get(m[1], m[0])),
    (re.compile(r"<="), "≤"),
    (re.compile(r">="), "≥"),
    (re.compile(r"\+/-"), "±"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\\A-Za-z])sqrt(?![A-Za-z])"), r"\\sqrt "),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), "π"),
    (re.compile(r"(?<![\\A-Za-z])infinity(?![A-Za-z])"), "∞"),
    (re.compile(r"\s+"), " "),
]


def plain(text: str) -> str:
    """`text` in the one spelling that the rest of this package reads."""
    text = _SUPERSCRIPT.sub(_superscript, text.strip(" \t\r\n*`"))
    text = "".join(map(_vulgar_fraction, text)).translate(_SIGNS)
    text = unicodedata.normalize("NFKC", text)
    # Row by row of a matrix: what ends a row begins like the space `\ `.
    rows = [_plain_row(row) for row in text.replace("\n", " ").split("\\\\")]
    return _join_thousands(r"\\".join(rows).strip(" ,;:").rstrip(" .,;:"))


def text_key(plain_text: str) -> str:
    """What two texts that are not mathematics have in common when they are the same.

    Case, quotes, braces around one character, and spaces but those between words do
    not count.
    """
    key = re.sub(r"\{(\w)\}", r"\1", plain_text.replace('"', " ").casefold())
    key = re.sub(r"\s+", " ", key)
    return re.sub(r"(?<![^\W\d]) | (?![^\W\d])", "", key).strip(" .")


def _plain_row(text: str) -> str:
    text = _EXPLICIT_THOUSANDS.sub("", text)
    text = _TEXT.sub(_quoted, text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


def _quoted(match: re.Match[str]) -> str:
    content = match[1].strip()
    if len(content) == 1 and match[0].startswith(r"\math") and content not in "mgshlLt":
        return content  # a symbol set in another face, unless it may be a unit
    if not any(c.isalpha() for c in content):
        return content
    return f' "{content}" '


def _superscript(match: re.Match[str]) -> str:
    digits = unicodedata.normalize("NFKC", match[0]).replace("−", "-")
    return "^{" + digits + "}"


def _vulgar_fraction(character: str) -> str:
    if not unicodedata.decomposition(character).startswith("<fraction>"):
        return character
    top, _, bottom = unicodedata.normalize("NFKC", character).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}" if bottom else character


def _join_thousands(text: str) -> str:
    """Joins 1,000 outside of brackets: inside them a comma separates."""
    out, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in _OPEN or c in _CLOSE:
            piece = text[start:i]
            out.append(_without_commas(piece) if depth == 0 else piece)
            out.append(c)
            depth = max(0, depth + (1 if c in _OPEN else -1))
            start = i + 1
    piece = text[start:]
    out.append(_without_commas(piece) if depth == 0 else piece)
    return "".join(out)


def _without_commas(text: str) -> str:
    return _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
