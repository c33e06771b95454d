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
TEXTS = (
    *("text", "caption", "captions", "txt", "texts", "sentence", "sentences", "description"),
    *("alt_text", "alttext", "caption_text", "caption_str", "image_caption", "comment", "raw"),
    *("prompt", "utterance", "summary", "title"),
)
# Where a text may be said within a dialogue.
DIALOGUES = ("conversations", "conversation", "messages", "dialog", "dialogue")
_NAMES = {"image": IMAGES, "text": TEXTS}
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
