"""Final trainings in this process, and as tasks of a cluster, here Ray on this machine."""

import pytest

from recsys.config.schema import replace_values
from recsys.final import placement
from recsys.final.choose import Choice
from recsys.final.train import train_for_validation
from tests.training.small_data import two_tastes
from tests.training.test_fit import make_config


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("address", [None, "auto"])
def test_a_divergence_is_reported_alike_in_this_process_and_on_a_cluster(
    address: str | None,
) -> None:
    config = replace_values(make_config(learning_rate=1e30), {"cluster.address": address})
    choice = Choice("c", config, 1, 0, None, None)
    with pytest.raises(FloatingPointError) as caught:
        list(placement.run(train_for_validation, [choice], two_tastes()))
    message = str(caught.value)
    assert message.startswith("train_loss, epoch 1: must be finite, but got ")
    assert "\n" not in message
