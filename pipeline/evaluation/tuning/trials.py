"""What tuning has tried, and how what is sure comes into the config."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.check.intervals import Interval
from pipeline.storage.files import write_whole

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap


@dataclass(frozen=True)
class Trial:
    """One group of settings that was tried.

    Attributes
    ----------
    settings : tuple of str
        Dotted keys.
    figure : str
        What was measured, the higher the better.
    held : dict
        What the config has; `auto` with what it came to.
    tried : list of dict
        `values` and `quality` on the rows that chose.
    best : dict
        The best values there.
    gain : Interval or None
        Of the best over what the config has, on the rows that confirm; None where they agree.
    """

    settings: tuple[str, ...]
    figure: str
    held: dict[str, Any]
    tried: list[dict[str, Any]]
    best: dict[str, Any]
    gain: Interval | None

    @property
    def changes(self) -> dict[str, Any]:
        """What is to be written into the config; empty where no gain is sure."""
        return self.best if self.gain is not None and self.gain.low > 0 else {}

    def told(self) -> str:
        """The evidence in a line."""
        if self.gain is None:
            return f"{self.figure}: nothing tried was better"
        return f"{self.figure}: {self.gain.mean:+.4f} ± {self.gain.half:.4f}"


@dataclass
class Tuned:
    """What tuning found.

    Attributes
    ----------
    rows, pairs : int
        Pairs that were hidden, and all of them.
    trials : list of Trial
    skipped : str or None
        What was not tried, and why.
    """

    rows: int
    pairs: int
    trials: list[Trial] = field(default_factory=list)
    skipped: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Dotted settings to change."""
        return {key: value for trial in self.trials for key, value in trial.changes.items()}

    def answer(self) -> dict[str, Any]:
        """For a program, and for `tuning.json`."""
        trials = [asdict(trial) | {"changes": trial.changes} for trial in self.trials]
        return {
            "rows": self.rows,
            "pairs": self.pairs,
            "changes": self.changes,
            "trials": trials,
            "skipped": self.skipped,
        }


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Write the changes into a config file, each with its evidence; comments and order stay.

    The file is replaced whole, and only after the new one has been read back.
    """
    from io import StringIO

    from ruamel.yaml import YAML

    from pipeline.config.config import load_config

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    values = yaml.load(path.read_text(encoding="utf-8"))
    for trial in tuned.trials:
        for key, value in trial.changes.items():
            _set(values, key.split("."), value, f"tuned, {trial.told()}")
    text = StringIO()
    yaml.dump(values, text)
    scratch = path.with_name(f".{path.name}.tuned")
    scratch.write_text(text.getvalue(), encoding="utf-8")
    try:
        load_config(scratch)
    finally:
        scratch.unlink()
    write_whole(path, text.getvalue())


def _set(values: CommentedMap, keys: list[str], value: Any, evidence: str) -> None:
    """Set a nested value, with the evidence at the end of the line that it stands in."""
    from ruamel.yaml.comments import CommentedMap

    place, line, told = values, (values, keys[0]), evidence
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if last or not isinstance(place.get(key), dict):
            made = value if last else CommentedMap()
            if key in place or place is values:
                place[key] = made
            else:
                # What follows the last key may be a comment on the next section.
                place.insert(0, key, made)
        if place.fa.flow_style():
            # All of it is one line, which has to say which value is meant.
            told = f"{keys[-1]} {evidence}"
        else:
            line = place, key
        place = place[key]
    _remark(*line, told)


def _remark(place: CommentedMap, key: str, text: str) -> None:
    """Put text behind the remark that a line has, in place of what tuning said there before."""
    comment = place.ca.items.get(key)
    token = comment[2] if comment else None
    if token is None:
        place.yaml_add_eol_comment(text, key)
        return
    # The token holds the lines that follow, too.
    own, line_end, rest = token.value.partition("\n")
    kind = text.split(",")[0]
    kept = [part for part in own.strip().removeprefix("#").strip().split("; ") if part]
    kept = [part for part in kept if part.split(",")[0] != kind]
    token.value = f" # {'; '.join([*kept, text])}{line_end}{rest}"
    token.column = 0
