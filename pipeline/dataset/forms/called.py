"""What columns of ids, images and texts are called, in lower case, in order of preference."""

from __future__ import annotations

import re

IDS = ("id", "__key__", "key", "uid", "uuid", "sample_id")
IMAGES = (
    *("image", "img", "images", "jpg", "jpeg", "png", "webp", "picture", "photo"),
    *("image_bytes", "file_name", "filename", "image_path", "filepath", "file_path", "path"),
    *("file", "files", "image_file", "image_name", "image_filename", "image_file_name"),
    *("imagename", "img_path", "img_name", "img_file", "image_filepath", "image_file_path"),
    *("picture_path", "photo_path", "local_path", "relative_path", "fname"),
)
# Where an object that tells of an image says where it is.
PLACES = ("path", *IMAGES, "src", "url", "uri", "href", "name")
TEXTS = (
    *("text", "caption", "captions", "txt", "texts", "sentence", "sentences", "description"),
    *("alt_text", "alttext", "caption_text", "caption_str", "image_caption", "comment", "raw"),
    *("prompt", "utterance", "summary", "title"),
)
# What else may be called so beside a column of texts.
_BESIDE_TEXTS = (
    *("alt", "desc", "descr", "content", "contents", "headline", "subtitle", "abstract", "legend"),
    *("narration", "narrative", "transcript", "transcription", "story", "synopsis"),
)
# Pictures of a picture's parts, which are none of its row.
_PARTS = frozenset(("mask", "masks", "depth", "seg", "segmentation", "segmentations"))
# Where a text may be said within a dialogue.
DIALOGUES = ("conversations", "conversation", "messages", "dialog", "dialogue")
_NAMES = {"image": IMAGES, "text": TEXTS}
# Members of a sample, and columns, that may be the pixels of an image.
_PIXELS = ("npy", "npz", "pixels", "pixel_values")
# Words of "shortText" and "short_text".
_WORDS = re.compile(r"[^\W\d_]+?(?=[A-Z][a-z]|[\W\d_]|$)")
# Codes of languages, of two letters, less what is no language in the name of a column.
_LANGUAGE = re.compile(r"(?!id|no|by|at|nr|ok)[a-z]{2}|chi|eng|fra|deu|spa|zho")
_NUMBER = re.compile(r"[\W_]*\d*$")


def is_called(half: str, name: str) -> bool:
    """Whether a column is called as one of a half, also as the second or third of them.

    Examples
    --------
    >>> is_called("text", "Caption_2"), is_called("text", "blip_captions"), is_called("image", "url")
    (True, True, False)
    """
    plain = _NUMBER.sub("", name.lower())
    return plain in _NAMES[half] or (half == "text" and (plain in DIALOGUES or "caption" in plain))


def may_be_called(half: str, name: str) -> bool:
    """Whether a column's name lets one look for a half in it: also as a kind or a translation of it.

    Examples
    --------
    >>> [may_be_called("text", name) for name in ("text_en", "shortText", "text_id")]
    [True, True, False]
    """
    if is_called(half, name) or (half == "image" and name.lower() in _PIXELS):
        return True
    words = _WORDS.findall(_NUMBER.sub("", name))
    first, last = (words[0].lower(), words[-1].lower()) if words else ("", "")
    is_translation = len(words) == 2 and _LANGUAGE.fullmatch(last) is not None
    names = (*TEXTS, *_BESIDE_TEXTS) if half == "text" else IMAGES
    return last in names or (is_translation and first in names)


def is_of_parts(name: str) -> bool:
    """Whether a column's name tells of masks and the like of pictures.

    Examples
    --------
    >>> is_of_parts("depth_map"), is_of_parts("unmasked")
    (True, False)
    """
    return not _PARTS.isdisjoint(word.lower() for word in _WORDS.findall(name))
