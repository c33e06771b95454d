"""Words of captions: a vocabulary of subwords, and made-up words in the place of known ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from generators.blip2_settings import Blip2Settings

VOCABULARY = 4000
END, PAD = "</s>", "<pad>"
_WORD = re.compile(r"[A-Za-z]+")
_SPACE_BEFORE = re.compile(r"\s+([.,;:!?])")
# Words that say nothing of what is seen, and are never made up.
_COMMON = """
    a about above across after against all along also an and another are around as at away back be
    because been before behind being below beside between both but by can down each few for from front
    has have he her here him his in inside into is it its large little lot many more most near next no
    not of off on one onto other out outside over several she small so some something that the their
    them there these they this those three through to together toward towards two under up very was
    well were what where which while who with you
"""
COMMON = frozenset(_COMMON.split())
# Sounds of a made-up syllable; a comma with nothing between is none.
ONSETS = "b,bl,br,c,ch,d,dr,f,fl,g,gl,gr,h,j,k,kl,l,m,n,p,pl,pr,qu,r,s,sh,sk,sl,st,t,tr,v,vr,w,z,zh"
VOWELS = "a,e,i,o,u,ai,ea,oo,ou,y"
CODAS = ",,,b,ck,d,ft,g,l,lm,m,n,nd,ng,nt,p,r,rk,sh,t,x,zz"


def tidied(caption: str) -> str:
    """A caption without the space before its punctuation.

    Examples
    --------
    >>> tidied(" A dog , wet , runs . ")
    'A dog, wet, runs.'
    """
    return _SPACE_BEFORE.sub(r"\1", " ".join(caption.split()))


def stem(word: str) -> str:
    """A word in lower case without the s of a plural.

    Examples
    --------
    >>> stem("Dogs"), stem("grass"), stem("is")
    ('dog', 'grass', 'is')
    """
    word = word.lower()
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def telling(texts: Iterable[str]) -> set[str]:
    """Stems of the words that say what is seen."""
    found = {stem(word) for text in texts for word in _WORD.findall(text) if len(word) > 2}
    return found - COMMON


def made_up_word(rng: np.random.Generator) -> str:
    """A word of one to three syllables that nobody knows."""

    def one(sounds: str) -> str:
        parts = sounds.split(",")
        return parts[int(rng.integers(len(parts)))]

    count = int(rng.choice([1, 2, 3], p=[0.2, 0.55, 0.25]))
    return "".join(one(ONSETS) + one(VOWELS) + one(CODAS) for _ in range(count))


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with other words for some stems; a plural stays one.

    Examples
    --------
    >>> renamed("Dogs chase a dog.", {"dog": "brelk"})
    'Brelks chase a brelk.'
    """

    def other(found: re.Match[str]) -> str:
        word = found.group()
        name = names.get(stem(word))
        if name is None:
            return word
        name += "s" if stem(word) != word.lower() else ""
        return name.capitalize() if word[0].isupper() else name

    return _WORD.sub(other, text)


def with_made_up_words(
    examples: Sequence[str], answer: str, share: float, rng: np.random.Generator
) -> tuple[list[str], str]:
    """Examples and answer in which the same words are made up alike.

    Parameters
    ----------
    share : float
        Of the words that the answer shares with an example, how many are made up; of those that
        stand in examples alone half of it. Words of the answer alone stay: nobody could know them.
    """
    shown, said = telling(examples), telling([answer])
    names = {
        word: made_up_word(rng)
        for word in sorted(shown)
        if rng.random() < (share if word in said else share / 2)
    }
    return [renamed(text, names) for text in examples], renamed(answer, names)


def learn_tokenizer(captions: Iterable[str], folder: Path) -> Any:
    """Learn a byte-level vocabulary (any word can be spelled) and save it as transformers reads it.

    Parameters
    ----------
    captions : iterable of str
        Those of the training half alone.
    folder : Path
        Made when needed; what lies there already is read instead.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            show_progress=False,
            min_frequency=2,
            special_tokens=[PAD, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        prompts = [Blip2Settings().render(["a"] * count) for count in (0, 1, 2, 3)] * 4
        learner.train_from_iterator([*prompts, *(f" {text}" for text in captions)], trainer)
        PreTrainedTokenizerFast(
            tokenizer_object=learner, pad_token=PAD, eos_token=END
        ).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)
