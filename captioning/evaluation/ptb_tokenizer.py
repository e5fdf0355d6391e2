"""Splits a caption into the lower-case tokens that the caption benchmarks compare.

coco-caption (Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015)
computes its metrics on the tokens of the Stanford PTBTokenizer (CoreNLP 3.4.1, options
`-preserveLines -lowerCase`) without punctuation. This module returns the same tokens for English
captions without Java, so that you can compare scores with published ones.

The tokenizer tries all rules at each position. The longest match wins; among equally long matches,
the first rule wins. If a rule has a group, the group is the token and the rest is its context:
"cannot" matches as a whole and gives "can", and reading continues at "not".

The scores depend on some peculiarities of the original, which this module reproduces. Brackets
stay, as "-lrb-", because the original lower-cases them and then removes the upper-case "-LRB-".
"!!" and "?!" stay, too. "£" becomes "#" and "€" becomes "$". A mixed fraction such as "2 1/2" is
one token with a no-break space.

This module does not reproduce what captions hardly contain: HTML entities (`&amp;`), telephone
numbers with spaces or brackets, the path after a web address without "http", file names that begin
with a digit, smileys without a mouth like ")", typographic hyphens inside words, text joined to a
curly contraction ("don’ts") or, by a single letter, to an abbreviation ("etc.x"), and rare symbols
that the original drops. Nor does it read the next caption: the original turns the "A." that ends a
caption into "a" if the next one begins with a word like "The"; here it is always "a.".
"""

import re

PUNCTUATION = frozenset("' '' ’ \" ` . ? ! , : ; - -- --- ----".split())

# Words that keep their full stop, in small or capital letters: titles, streets, firms, months ...
ABBREVIATIONS = """
    adj adm adv ala alex al apr ariz assn asst attys? aug ave bancorp bhd bldg blvd brig bros calif
    capt cf cie cmdr colo cos? col comdr conn corp cpl ct dak dec dept det drs? ed\\.d elec ens esq
    est etc ext feb fla fri ft ga gen govs? hon inc ind insp intl invt jan jos jr jul jun kans? ky
    lieut ltd lt maj mar md messrs mfg mich minn mlle mme mon mont mo mrs? ms msgr mtg? natl neb nev
    nov oct okla penn pfc ph\\.d ph plc pp?t[ey]s? pres profs? pvt rd reps? rev rt sens? sept? seq
    sfc sgt spc sq sr ste? supts? sys tel tenn thu thurs treas tue tues univ va vs vt wed wisc? wm
    wyo
    """
# ... only with a capital, because these are English words or names, too ...
CAPITAL_ABBREVIATIONS = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
# ... and only before a number.
NUMBER_ABBREVIATIONS = "art figs? nos? pp? prop"

# After a single letter and a full stop, these words begin a new sentence; others follow initials.
SENTENCE_STARTS = """
    A About According After An As At But He Her Here However If In It Last Many More Now Once One
    Other Our She Since So Some Such That The Their Then There These They This We What When While
    Yet You Mr\\. Ms\\.
    """

LETTER = r"[A-Za-zªµºÀ-ÖØ-öø-\u1fff\u3040-\ud7ff]"
WORD = rf"{LETTER}(?:{LETTER}|\d)*"
# In O'Neill and l'artiste the elision belongs to the word.
PART = rf"(?:[dlo]['’])?(?:{LETTER}|\d)+"
CLITIC = r"'(?:s|m|d|re|ve|ll)(?![a-z])"


def _any_of(words: str) -> str:
    return "(?:" + "|".join(words.split()) + ")"


# The order matters only between matches of the same length.
_RULES = [
    re.compile(rule)
    for rule in (
        # One word that counts as two.
        r"(?i:(can)not|(gon|wan)na|(got)ta|(gim|lem)me|('t)is|('t)was)",
        r"(?i:([a-z]+?)n['`]t)",
        r"(?i:n['`]t)",
        rf"(?i:({LETTER}+){CLITIC})",
        rf"(?i:{CLITIC})",
        rf"(?i:(y['’]){LETTER})",
        # Apostrophes that belong to the word: ma'am, S'mores, 'em, rock 'n' roll, the '50s.
        rf"{LETTER}+[aeiouyAEIOUY]['’][aeiouA-Z]{LETTER}*",
        rf"[A-HJ-XZn]['’]{LETTER}{{2,}}",
        r"(?i:c'mon|c'est|e'er|s'mores|cap'n|ev'ry|li'l|nat'l|nor'easter)",
        r"(?i:(?:dunkin|somethin|ol)'(?![a-z]))",
        r"(?i:['’](?:em|till?|cause)(?![a-z])|['’]n(?:['’]|(?!\S)))",
        r"['’](?:[2-9]0s|\d\d(?!\S))",
        # Words, also joined by hyphens, slashes, stops ("grass.The"), ampersands, underscores.
        rf"{WORD}(?:[.!?]{WORD})*",
        rf"(?i:{PART}(?:-{PART})*)",
        r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-[A-Za-z0-9]+)+",
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        r"[A-Z]+(?:[&+][A-Z]+)+",
        r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+",
        # Abbreviations and initials.
        rf"(?i:{_any_of(ABBREVIATIONS)})\.",
        rf"(?:{_any_of(CAPITAL_ABBREVIATIONS)}|{_any_of(CAPITAL_ABBREVIATIONS.upper())})\.",
        rf"((?i:{_any_of(NUMBER_ABBREVIATIONS)})\.) ?\d",
        r"[A-Za-z](?:\.[A-Za-z])*\.",
        rf"(?i:({PART}(?:-{PART})*\.)[,:;])",
        rf"([A-Za-z])\.\s+(?=[A-Z])(?i:{_any_of(SENTENCE_STARTS)})(?!\S)",
        # Numbers: 1,000 and 5:30 and .5, then 2 1/2.
        r"[-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)",
        r"\d{1,4}[- ]\d{1,4}/\d{1,4}",
        # The language of the web.
        r"https?://[^\s\"<>()]*[^\s\"<>().,!?]",
        r"[\w.-]+@\w+(?:[.-]\w+)*|@[A-Za-z_]\w*|#[A-Za-z]+",
        rf"[<>]?[:;=][-o']?[()@\\|DdPpO](?!{LETTER}|\d)",
        r"</?[A-Za-z][^<>]*>",
        # Any other character is a token; a few signs form a token together.
        r"[A-Z]*\$|[?!]+|\.{3,}|-{2,}|_+|\*+|#+|@+|''|\S",
    )
]

# Blanks, and characters that the original drops: zero-width ones and emoji.
_SKIPPED = re.compile(r"[\s\u200b-\u200f\ufe0f\ufeff\U00010000-\U0010ffff]+")

# The quote before a fraction is dropped later. It makes "2 ½" two tokens, unlike "2 1/2".
_PLAIN = str.maketrans(
    dict.fromkeys("“”‘«»‹›‛", '"')
    | dict.fromkeys("–—―", " -- ")
    | {"…": " ... ", "\u00a0": " ", "\u00ad": None, "£": "#", "€": "$", "¤": "$", "¢": " cents "}
    | {"½": ' "1/2 ', "¼": ' "1/4 ', "¾": ' "3/4 ', "⅓": ' "1/3 ', "⅔": ' "2/3 '}
)
# A curly apostrophe becomes straight in "it’s" and "don’t", but not in "o’clock".
_CURLY_CLITIC = re.compile(r"(?i)’(?=(?:s|m|d|re|ve|ll)(?![a-z]))|(?<=n)’(?=t(?![a-z]))")

_BRACKETS = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
)


def tokenize(caption: str) -> list[str]:
    """Returns the lower-case tokens of a caption, which is one line, without punctuation. No token
    contains an ordinary blank, so `" ".join(tokens)` is the line that coco-caption scores."""
    caption = _CURLY_CLITIC.sub("'", caption.translate(_PLAIN))
    tokens = []
    position = 0
    while position < len(caption):
        if skipped := _SKIPPED.match(caption, position):
            position = skipped.end()
            continue
        matches = (match for rule in _RULES if (match := rule.match(caption, position)))
        longest = max(matches, key=re.Match.end)
        token = longest[longest.lastindex or 0]
        position += len(token)
        if token not in PUNCTUATION and token.strip("."):
            tokens.append(token.lower().translate(_BRACKETS).replace(" ", "\u00a0"))
    return tokens
