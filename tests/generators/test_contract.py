"""What every captioner and every image generator promises, asked of each kind."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators import CAPTIONERS, IMAGE_GENERATORS
from generators.base import Candidate, Generated
from tests.generators.cases import CASES, class_of

# Each has the class of one case that stays, and the grounding of another.
SLOW = (
    "blip2-t5",
    "vlm-qwen2_vl",
    "diffusers-stable_diffusion/prompt",
    "diffusers-stable_diffusion_3/none",
    "diffusers-sdxl/img2img",
)


def marked(cases: list[tuple[str, str]]) -> list[Any]:
    """The cases, some of them as slow tests."""
    return [pytest.param(*c, marks=pytest.mark.slow) if c[1] in SLOW else c for c in cases]


def close_to(one: Generated, other: Generated) -> bool:
    """Equal, up to the rounding by which a batch may differ from a single row."""
    if one.error != other.error or len(one.candidates) != len(other.candidates):
        return False
    return all(
        first.text == second.text
        and (first.seed, first.prompt, first.notes) == (second.seed, second.prompt, second.notes)
        and _close_images(first, second)
        for first, second in zip(one.candidates, other.candidates, strict=True)
    )


def _close_images(first: Candidate, second: Candidate) -> bool:
    if first.image is None or second.image is None:
        return first.image is second.image
    return np.allclose(np.asarray(first.image, int), np.asarray(second.image, int), atol=2)


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_answers_every_request_in_order_with_a_candidate_for_each_seed(
    role: str, case: str, loaded: Any, requests_of: Any
) -> None:
    requests = requests_of(role, bare=case != "nearest")
    answers = loaded(role, case).generate(requests)
    assert [answer.row_id for answer in answers] == [request.row_id for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        assert answer.error is None
        assert tuple(one.seed for one in answer.candidates) == request.seeds
        for candidate in answer.candidates:
            if role == "captioner":
                assert isinstance(candidate.text, str)
                assert candidate.image is None
            else:
                assert isinstance(candidate.image, Image.Image)
                assert candidate.image.mode == "RGB"
                assert candidate.text is None


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_the_same_seeds_give_the_same_candidates(
    role: str, case: str, make: Any, loaded: Any, requests_of: Any
) -> None:
    requests = requests_of(role, bare=False)
    first = loaded(role, case).generate(requests)
    second = make(role, case).generate(requests)
    assert all(close_to(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(("role", "case"), marked([case for case in CASES if case[1] != "nearest"]))
def test_another_seed_gives_another_candidate(
    role: str, case: str, loaded: Any, requests_of: Any
) -> None:
    (answer,) = loaded(role, case).generate(requests_of(role, rows=1, seeds=4, bare=False))
    if role == "captioner":
        assert len({one.text for one in answer.candidates}) == 4
    else:
        assert len({one.image.tobytes() for one in answer.candidates}) == 4


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_a_row_does_not_depend_on_its_neighbours(
    role: str, case: str, loaded: Any, requests_of: Any
) -> None:
    generator = loaded(role, case)
    requests = requests_of(role, bare=case != "nearest")
    together = generator.generate(requests)
    alone = [generator.generate([request])[0] for request in requests]
    reversed_order = generator.generate(requests[::-1])[::-1]
    for batched, single, other in zip(together, alone, reversed_order, strict=True):
        assert close_to(batched, single)
        assert close_to(batched, other)


@pytest.fixture
def pings_draw_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to Prefect that other tests of this process left open draw a number a ping."""
    if "websockets.asyncio.connection" in sys.modules:
        monkeypatch.setattr("websockets.asyncio.connection.random", random.Random())


@pytest.mark.usefixtures("pings_draw_elsewhere")
@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_global_random_generators_are_neither_read_nor_moved(
    role: str, case: str, make: Any, loaded: Any, requests_of: Any
) -> None:
    requests = requests_of(role, rows=2, bare=False)
    answers = []
    # One loads its model with these seeds, the other was loaded with others.
    for seed, made in ((1, make), (2, loaded)):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
        answers.append(made(role, case).generate(requests))
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])
        assert before[2] == random.getstate()
    assert all(close_to(one, other) for one, other in zip(*answers, strict=True))


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_loads_on_demand_and_frees_on_close(
    role: str, case: str, make: Any, requests_of: Any
) -> None:
    generator = make(role, case)
    requests = requests_of(role, rows=1, bare=False)
    assert generator.memory() == 0
    first = generator.generate(requests)
    loaded = generator.memory()
    assert (loaded > 0) == bool(generator.settings.models())
    generator.load()
    assert generator.memory() == loaded
    generator.close()
    assert generator.memory() == 0
    assert close_to(first[0], generator.generate(requests)[0])


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_nothing_asked_gives_nothing(role: str, case: str, loaded: Any) -> None:
    assert loaded(role, case).generate([]) == []


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_identity_holds_what_changes_the_output_alone(role: str, case: str, make: Any) -> None:
    identity = make(role, case).settings.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert not {"device", "batch_size", "concurrency", "retries", "api_key_env"} & identity.keys()
    assert identity["kind"] == case.partition("-")[0]


@pytest.mark.parametrize(("role", "case"), marked(CASES))
def test_settings_refuse_unknown_keys_and_describe_every_field(
    role: str, case: str, make: Any
) -> None:
    settings = make(role, case).settings
    with pytest.raises(ValueError, match="colour"):
        type(settings).model_validate(settings.model_dump() | {"colour": "red"})
    fields = type(settings).model_fields
    assert [name for name, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("registry", [CAPTIONERS, IMAGE_GENERATORS])
def test_registered_kinds_lead_to_classes_of_that_kind(registry: dict[str, str]) -> None:
    for kind in registry:
        assert class_of(kind, registry).Settings.model_fields["kind"].default == kind


@pytest.mark.parametrize(
    ("role", "case"),
    marked(
        [
            case
            for case in CASES
            if case[1].partition("-")[0] in ("blip2", "vlm", "sdxl", "diffusers")
            # Its images go one by one in any case.
            and not case[1].endswith("/reference")
        ]
    ),
)
def test_out_of_memory_halves_the_batch_and_fails_one_row_alone(
    role: str, case: str, make: Any, loaded: Any, requests_of: Any
) -> None:
    requests = requests_of(role, rows=4, seeds=3, bare=False)
    expected = loaded(role, case).generate(requests)
    generator = make(role, case)
    draw = generator._runner.work
    batches: list[int] = []

    def short_of_memory(jobs: list[Any]) -> list[Any]:
        batches.append(len(jobs))
        if len(jobs) > 2 or any(job.row == 1 for job in jobs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return draw(jobs)

    generator._runner.work = short_of_memory
    answers = generator.generate(requests)
    assert "out of memory" in answers[1].error
    assert answers[1].candidates == ()
    for row in (0, 2, 3):
        assert close_to(answers[row], expected[row])
    assert max(batches) == 3
    assert min(batches) == 1
