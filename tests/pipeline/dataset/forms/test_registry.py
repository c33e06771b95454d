"""One list of forms, wherever a form can be named."""

from __future__ import annotations

import inspect as signatures
from typing import get_args

from flows.commands.dataset import init
from pipeline.dataset.forms.registry import SOURCES
from pipeline.dataset.settings import DatasetSettings


def test_every_form_can_be_set_and_asked_for() -> None:
    annotation = DatasetSettings.model_fields["format"].annotation
    assert {*get_args(annotation)} == {"auto", *SOURCES}
    told = str(signatures.signature(init, eval_str=True).parameters["format"].annotation)
    assert all(f"'{form}'" in told for form in SOURCES)
