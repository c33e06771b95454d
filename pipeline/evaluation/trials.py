"""What tuning has tried, and how what is sure comes into the config."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.statistics import Interval
from pipeline.files import write_whole


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
    """What tuning found."""

    rows: int
    pairs: int
    trials: list[Trial] = field(default_factory=list)

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
        }


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Write the changes into a config file, each with its evidence; comments and order stay.

    The file is replaced whole, and only after the new one has been read back.
    """
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    from pipeline.config import load_config

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    values = yaml.load(path.read_text(encoding="utf-8"))
    for trial in tuned.trials:
        for key, value in trial.changes.items():
            *sections, last = key.split(".")
            place = values
            for section in sections:
                if not isinstance(place.get(section), dict):
                    place[section] = CommentedMap()
                place = place[section]
            place[last] = value
            if not place.fa.flow_style():
                place.yaml_add_eol_comment(f"tuned, {trial.told()}", last)
    text = StringIO()
    yaml.dump(values, text)
    scratch = path.with_name(f".{path.name}.tuned")
    scratch.write_text(text.getvalue(), encoding="utf-8")
    try:
        load_config(scratch)
    finally:
        scratch.unlink()
    write_whole(path, text.getvalue())
