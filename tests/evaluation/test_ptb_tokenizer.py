"""The tokens equal those of the Java tokenizer, which made the literal ones below."""

import shutil
import zipfile

import pytest
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from captioning.evaluation.ptb_tokenizer import tokenize

# (caption, its tokens joined by blanks); \u00a0 is the no-break space inside a mixed fraction.
GOLDEN = [
    (
        "A goat in a T-shirt doesn't look at the juggler .",
        "a goat in a t-shirt does n't look at the juggler",
    ),
    (
        "A goat in a T-shirt doesn't look at the juggler.",
        "a goat in a t-shirt does n't look at the juggler",
    ),
    (
        "the baker's oven and the bakers' ovens are cold",
        "the baker 's oven and the bakers ovens are cold",
    ),
    ("James's kite is caught in James' tree .", "james 's kite is caught in james tree"),
    (
        "They're sure it's theirs, but we've seen who'd won and I'm glad she'll stay.",
        "they 're sure it 's theirs but we 've seen who 'd won and i 'm glad she 'll stay",
    ),
    (
        "He can't swim, won't paddle and shan't float.",
        "he ca n't swim wo n't paddle and sha n't float",
    ),
    (
        "CAN'T STOP, WON'T STOP reads the banner on Otto's van",
        "ca n't stop wo n't stop reads the banner on otto 's van",
    ),
    (
        "An otter cannot open the jar ; it's gonna try, it wants to and it's gotta .",
        "an otter can not open the jar it 's gon na try it wants to and it 's got ta",
    ),
    (
        '"Gimme that" and "lemme go" are printed on two mugs.',
        "gim me that and lem me go are printed on two mugs",
    ),
    (
        "'Tis the season, 'twas the night: elves dance 'til dawn.",
        "'t is the season 't was the night elves dance 'til dawn",
    ),
    (
        "A rock n' roll band, a rock 'n' roll band and a rock & roll band",
        "a rock n roll band a rock 'n' roll band and a rock & roll band",
    ),
    ("The kitchen clock shows three o'clock.", "the kitchen clock shows three o'clock"),
    (
        "Sean O'Neill and Chloe D'Angelo juggle lemons .",
        "sean o'neill and chloe d'angelo juggle lemons",
    ),
    (
        "A ma'am and a cap'n say \"c'mon y'all\" to 'em.",
        "a ma'am and a cap'n say c'mon y' all to 'em",
    ),
    (
        "Mr. Pipkin and Mrs. Plum meet Dr. Fig on Elm St. in the U.S. today.",
        "mr. pipkin and mrs. plum meet dr. fig on elm st. in the u.s. today",
    ),
    ("A parade in the U.S.", "a parade in the u.s."),
    (
        "Two badgers wait on Maple Ave., near Cobble Inc. headquarters.",
        "two badgers wait on maple ave. near cobble inc. headquarters",
    ),
    (
        "The tram leaves at 5:30 p.m., not at 10:15am .",
        "the tram leaves at 5:30 p.m. not at 10:15 am",
    ),
    (
        "Socks, mugs, etc. lie on a table, e.g. a blue mug.",
        "socks mugs etc. lie on a table e.g. a blue mug",
    ),
    ("A tall letter A. The letter is red.", "a tall letter a the letter is red"),
    ("J. R. Hoot sings in Washington D.C. at noon", "j. r. hoot sings in washington d.c. at noon"),
    ("Dad sits in the wash. Mom is mad.", "dad sits in the wash mom is mad"),
    ("A chart shows Wash. and Tex. in orange", "a chart shows wash. and tex. in orange"),
    (
        "Bus no. 7 passes, but there is no. Not one seat.",
        "bus no. 7 passes but there is no not one seat",
    ),
    ("A sign with 1/2 off and a pie cut in 3/4 .", "a sign with 1/2 off and a pie cut in 3/4"),
    ("He drinks 2 1/2 cups of tea", "he drinks 2\u00a01/2 cups of tea"),
    ("A note dated 12/25/2010 beside 24/7 neon", "a note dated 12/25/2010 beside 24/7 neon"),
    (
        "Lemons cost $5 or $1,000.50 and 50% of nothing.",
        "lemons cost $ 5 or $ 1,000.50 and 50 % of nothing",
    ),
    (
        "A penguin wearing #3 passes number # 12 to #team",
        "a penguin wearing # 3 passes number # 12 to #team",
    ),
    ("Salt & pepper, AT&T, R&B and b&w photos", "salt & pepper at&t r&b and b & w photos"),
    (
        "a red/white/blue kite and/or a black-and-white/grey one",
        "a red/white/blue kite and/or a black-and-white/grey one",
    ),
    (
        "A three-year-old, mid-air, on a 4-wheeler -- or a 2x4 - lands.",
        "a three-year-old mid-air on a 4-wheeler or a 2x4 lands",
    ),
    ("a half -eaten pear, a half- eaten plum", "a half eaten pear a half eaten plum"),
    ("Wait... what.. no.... yes . . . ok", "wait what no yes ok"),
    (
        "A snail (asleep) sits on a [blue] box {maybe}",
        "a snail -lrb- asleep -rrb- sits on a -lsb- blue -rsb- box -lcb- maybe -rcb-",
    ),
    ("Stop!! Is that a yak?! Yes! Is it? It is.", "stop !! is that a yak ?! yes is it it is"),
    ("semi; colon: comma, done", "semi colon comma done"),
    (
        "“Curly quotes” and ‘single ones’ don’t scare Otto’s crow — or crows’ … chicks",
        "curly quotes and single ones do n't scare otto 's crow or crows chicks",
    ),
    ("Rock ’n’ roll at five o’clock in the ’50s", "rock ’n’ roll at five o’clock in the ’50s"),
    (
        "A café with ½ a crème brûlée for £5, €5 or 50¢",
        "a café with 1/2 a crème brûlée for # 5 $ 5 or 50 cents",
    ),
    (
        "A 1950's diner with '50s music, 80s hair and an '07 van",
        "a 1950 's diner with '50s music 80s hair and an '07 van",
    ),
    ("A 6'2\" man holds a 12\" ruler and a 5' pole", "a 6 2 man holds a 12 ruler and a 5 pole"),
    (
        "a 1.5-inch nail, a 1,000-foot drop and a 5 1/2 inch one",
        "a 1.5-inch nail a 1,000-foot drop and a 5\u00a01/2 inch one",
    ),
    (
        "The 1st, 2nd and 23rd runners scored 3.5, .5, -5 and +5",
        "the 1st 2nd and 23rd runners scored 3.5 .5 -5 and +5",
    ),
    (
        "A sheep stands on the grass.The sheep eats the grass.",
        "a sheep stands on the grass.the sheep eats the grass",
    ),
    ("a yak,a newt and an emu;all asleep", "a yak a newt and an emu all asleep"),
    (
        "The sign says www.example.com and http://example.com/map .",
        "the sign says www.example.com and http://example.com/map",
    ),
    (
        "Mail the owl at owl@example.com or @owl_post",
        "mail the owl at owl@example.com or @owl_post",
    ),
    ("a *very* odd ~ box with 2 + 2 = 4 on it", "a * very * odd ~ box with 2 + 2 = 4 on it"),
    ("A smiling face :) and a sad one :(", "a smiling face :-rrb- and a sad one :-lrb-"),
    ("<unk> holds a <unk>", "<unk> holds a <unk>"),
    ("He said 'hello there' and \"goodbye.\"", "he said hello there and goodbye"),
    ("A bird's-eye view of a will-o'-wisp", "a bird 's eye view of a will-o wisp"),
    ("A dancer in a tv. , a dancer on TV., a dancer", "a dancer in a tv a dancer on tv. a dancer"),
    ("the  kettle\tand   the pot", "the kettle and the pot"),
    (".", ""),
    ("?! ...", "?!"),
    ("A 'slide' beside the 'pool", "a slide beside the pool"),
]

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


def lines_by_java(captions):
    annotations = {i: [{"caption": caption}] for i, caption in enumerate(captions)}
    tokenized = PTBTokenizer().tokenize(annotations)
    return [tokenized[i][0] for i in range(len(captions))]


@pytest.mark.parametrize(("caption", "line"), GOLDEN)
def test_a_caption_gives_the_tokens_of_the_java_tokenizer(caption, line):
    assert " ".join(tokenize(caption)) == line


def test_an_empty_caption_has_no_tokens():
    assert tokenize("") == tokenize(" \t ") == []


def test_blanks_around_a_caption_do_not_matter():
    assert tokenize("  Two owls blink. ") == tokenize("Two owls blink.") == ["two", "owls", "blink"]


@needs_java
def test_the_java_tokenizer_still_gives_the_literal_tokens():
    captions, lines = zip(*GOLDEN, strict=True)
    assert lines_by_java(captions) == list(lines)


@pytest.mark.slow
@needs_java
@pytest.mark.real
def test_every_flickr8k_caption_gives_the_tokens_of_the_java_tokenizer(shared):
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_text.zip") as archive:
        rows = archive.read("Flickr8k.token.txt").decode("utf-8").splitlines()
    captions = [row.split("\t", 1)[1] for row in rows]
    assert len(captions) == 40_460
    pairs = zip(captions, lines_by_java(captions), strict=True)
    assert [caption for caption, line in pairs if " ".join(tokenize(caption)) != line] == []
