from __future__ import annotations

import numpy as np

from kb.mapping import CrossModalMapping, MappingSettings
from kb.mapping.regressors import Start
from kb.mapping.shared_mlp import SharedMLP
from kb.recipe import KnowledgeBaseSettings
from tests.kb.worlds import World

QUICK = MappingSettings(epochs=30, width=64)


def test_an_untrained_mlp_is_the_start() -> None:
    pairs = World(2).draw(60)
    untrained = SharedMLP(width=32, epochs=1, learning_rate=1e-12, weight_decay=0).fit(pairs)
    for source in ("image", "text"):
        expected = Start().fit(pairs).predict(pairs[source], source)
        np.testing.assert_allclose(untrained.predict(pairs[source], source), expected, atol=1e-5)


def test_one_trunk_serves_both_directions() -> None:
    names = SharedMLP(width=16).fit(World(2).draw(40)).state()
    trunk = [name for name in names if name.startswith("network.trunk")]
    assert trunk
    assert not any("image" in name or "text" in name for name in trunk)
    assert names["network.directions.weight"].shape == (2, 16)


def test_training_leaves_the_global_random_state_alone() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SharedMLP(width=16, epochs=2).fit(World(2).draw(40))
    torch.testing.assert_close(torch.rand(3), expected)


def test_a_network_that_is_not_residual_owes_nothing_to_the_mean_shift() -> None:
    pairs = World(0, dimensions=(48, 20)).draw(300)
    alone = SharedMLP(residual=False, epochs=40, width=64).fit(pairs)
    assert alone.losses[-1] < alone.losses[0]
    before = alone.predict(pairs["image"][:5], "image")
    alone.start.means = {m: mean + 1 for m, mean in alone.start.means.items()}
    np.testing.assert_array_equal(alone.predict(pairs["image"][:5], "image"), before)
    again = SharedMLP(residual=False, epochs=40, width=64).restore(alone.state())
    np.testing.assert_allclose(again.predict(pairs["image"][:5], "image"), before, atol=1e-6)


def test_the_paper_starts_its_network_from_nothing() -> None:
    mapping = KnowledgeBaseSettings.paper().mapping
    assert (mapping.method, mapping.residual) == ("mlp", False)
    pairs = World(0).draw(200)
    few = mapping.model_copy(update={"epochs": 20, "width": 64})
    fitted = CrossModalMapping(few).fit(pairs["image"], pairs["text"])
    assert not fitted._models["mlp"].residual
