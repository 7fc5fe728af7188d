"""One pass over all texts: what the checks need to know of each, in a few bytes a row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.framing import split_pair
from lightune.data.scratch import CHUNK_ROWS
from lightune.data.splits import normalised
from lightune.data.values import Texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Keys = NDArray[np.uint64]

N_HASHES, BANDS = 64, 16  # a pair of texts that share 70 % of their shingles is a candidate 99 times in 100
FEWEST_WORDS = 6  # of texts that are compared for nearness: shorter ones are near by chance
SEED = 0  # of the hash functions: which ones is no choice of a run
_WORD = re.compile(r"\w+")
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"

_EMAIL, _PHONE, _CARD, _IBAN = "e-mail addresses", "telephone numbers", "payment card numbers", "IBANs"
PERSONAL: dict[str, re.Pattern[str]] = {
    _EMAIL: re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63})+"),
    _PHONE: re.compile(
        r"""(?<![\w.,/-])(?<!\d[ ])(?:
            \+\d(?:[ ./()-]{0,3}\d){7,14}                            # +44 20 7946 0958
            | (?:1[ .-])?(?:\(\d{2,5}\)[ ]?|\d{3,5}[ -])\d{3,4}[ -]\d{3,4}  # 020 7946 0958, (555) 123-4567
            | \d{3}\.\d{3}\.\d{4}                                    # 555.123.4567
            | 0[1-9]\d{1,3}[ /-]\d{6,8}                              # 07911 123456, 0170/1234567
            | 0[1-9](?:[ .-]\d\d){4}                                 # 01 23 45 67 89
            | 0[1-9]\d{8,9}                                          # 07911123456
            )(?![\w-]|[ .]?\d{3})""",
        re.VERBOSE,
    ),
    _CARD: re.compile(r"(?<!\d)(?:\d{4}(?:[ -]?\d{4}){3}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?!\d)"),
    _IBAN: re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "IP addresses": re.compile(rf"(?<![\d.])(?:{_BYTE}\.){{3}}{_BYTE}(?![\d.])"),
    "US social security numbers": re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"),
}
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAG = re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>")
_FOUR_DIGITS = re.compile(r"(?:\d[^\d\n]{0,4}){3}\d")  # near each other: what all but an e-mail address have
_DIGITS = re.compile(r"\D")


def _is_blank(text: str, words: list[str]) -> bool:
    return not text or text.isspace()


def _is_garbage(text: str, words: list[str]) -> bool:
    """Hardly a letter or a digit, or one character over and over."""
    stripped = text.strip()
    n_letters = sum(map(len, words))
    return bool(stripped) and (n_letters * 4 < len(stripped) or (len(stripped) > 8 and len(set(stripped)) <= 2))


def _is_mojibake(text: str, words: list[str]) -> bool:
    """Whether it was decoded in an encoding that was not its own."""
    if text.isascii():
        return False
    import ftfy.badness

    return "\ufffd" in text or ftfy.badness.is_bad(text)


def _has_controls(text: str, words: list[str]) -> bool:
    return CONTROLS.search(text) is not None


def _has_markup(text: str, words: list[str]) -> bool:
    return "<" in text and _TAG.search(text) is not None


FLAGS: dict[str, Callable[[str, list[str]], bool]] = {  # what a text may be, by itself and by its words
    "blank": _is_blank,
    "garbage": _is_garbage,
    "mojibake": _is_mojibake,
    "control characters": _has_controls,
    "markup": _has_markup,
}


@dataclass(frozen=True)
class Readings:
    """Of N texts: hashes (N,) of the text as it is and normalised, bytes of UTF-8 (N,), flags name -> (N,).

    For near copies: (N, BANDS) hashes of which two near texts share one, and words (N,).
    """

    exact: Keys
    normal: Keys
    n_bytes: NDArray[np.int64]
    n_words: NDArray[np.int64]
    flags: dict[str, Bools]
    bands: Keys

    @cached_property
    def first_copy(self) -> NDArray[np.int64]:
        """(N,) the place of the first text that is the same but for case, white space and Unicode form."""
        _, first, inverse = np.unique(self.normal, return_index=True, return_inverse=True)
        return first[inverse]


def read_through(
    texts: Texts, advance: Callable[[int], None] = lambda n_rows: None, *, are_pairs: bool = False
) -> Readings:
    """Reads all texts once; `advance` is told of the rows done.

    are_pairs: each is two texts joined, which are read as two lines; where one of them is blank, the row is.
    """
    n = len(texts)
    exact, normal = np.empty(n, np.uint64), np.empty(n, np.uint64)
    n_bytes, n_words = np.empty(n, np.int64), np.empty(n, np.int64)
    flags = {name: np.zeros(n, bool) for name in (*FLAGS, *PERSONAL)}
    bands = np.empty((n, BANDS), np.uint64)
    for start in range(0, n, CHUNK_ROWS):
        rows = slice(start, min(n, start + CHUNK_ROWS))
        joined = [text or "" for text in texts[rows]]
        chunk = ["\n".join(split_pair(text)) for text in joined] if are_pairs else joined
        shapes = [normalised(text) for text in chunk]
        exact[rows] = [_hash(text) for text in joined]
        normal[rows] = [_hash(text) for text in shapes]
        n_bytes[rows] = [len(text.encode("utf-8", "surrogatepass")) for text in chunk]
        words = [_WORD.findall(text) for text in shapes]
        n_words[rows] = [len(each) for each in words]
        for name, test in FLAGS.items():
            flags[name][rows] = [test(text, own) for text, own in zip(chunk, words, strict=True)]
        if are_pairs:
            flags["blank"][rows] = [not all(map(str.strip, split_pair(text))) for text in joined]
        for place, text in enumerate(chunk, start):
            for name in _personal(text):
                flags[name][place] = True
        bands[rows] = band_hashes([shingles(each) for each in words])
        advance(len(chunk))
    return Readings(exact, normal, n_bytes, n_words, flags, bands)


def shingles(words: Sequence[str]) -> set[str]:
    """Words and pairs of neighbouring words: what two texts share of these says how near they are."""
    return {*words, *[f"{one} {other}" for one, other in pairwise(words)]}


def words_of(text: str) -> list[str]:
    """The words of a text, normalised."""
    return _WORD.findall(normalised(text))


def band_hashes(sets: Sequence[set[str]]) -> Keys:
    """(N, BANDS) of N sets: two that share a part p of their elements share one of these with chance 1 - (1 - p⁴)¹⁶.

    Source: Leskovec, Rajaraman and Ullman 2020, Mining of Massive Datasets, section 3.4.
    """
    from rensa import RMinHash

    rows: Any = RMinHash.digests_from_token_sets([list(each) or [""] for each in sets], num_perm=N_HASHES, seed=SEED)
    digests = np.array(rows, np.uint64).reshape(len(sets), BANDS, N_HASHES // BANDS)
    mixed = np.zeros((len(sets), BANDS), np.uint64)
    for column in range(digests.shape[2]):
        mixed = (mixed ^ digests[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _personal(text: str) -> list[str]:
    """The kinds of personal data that a text seems to hold."""
    found = [_EMAIL] if "@" in text and PERSONAL[_EMAIL].search(text) else []
    if _FOUR_DIGITS.search(text):
        found += [name for name in PERSONAL if name != _EMAIL and _holds(name, text)]
    return found


def _holds(name: str, text: str) -> bool:
    is_one = _LOOKS.get(name, bool)
    return any(is_one(match.group()) for match in PERSONAL[name].finditer(text))


def _is_phone(found: str) -> bool:
    """Not years, nor a part of some longer number, in groups of four, nor a book's ISBN."""
    groups = re.findall(r"\d+", found)
    digits = "".join(groups)
    return {len(group) for group in groups} != {4} and not (len(digits) == 10 == len(found) and _is_isbn(digits))


def _is_isbn(digits: str) -> bool:
    """Whether the check digit of ten is right. Source: ISO 2108, annex B."""
    return sum(place * int(digit) for place, digit in enumerate(digits, 1)) % 11 == 0


def _is_iban(found: str) -> bool:
    """Whether the check digits are right. Source: ISO 13616-1, by ISO/IEC 7064 MOD 97-10."""
    letters = found.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1


def _is_card(digits: str) -> bool:
    """Whether the check digit is right. Source: ISO/IEC 7812-1, annex B (Luhn)."""
    numbers = [int(digit) for digit in reversed(_DIGITS.sub("", digits))]
    doubled = [2 * number - 9 * (number > 4) for number in numbers[1::2]]
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0


# kind of personal data -> what tells it from numbers that look like it
_LOOKS: dict[str, Callable[[str], bool]] = {_PHONE: _is_phone, _CARD: _is_card, _IBAN: _is_iban}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
