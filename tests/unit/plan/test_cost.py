"""Seconds of one job from its sizes and the rates of a device."""

import pytest

from helpers.plan_study import DEVICE
from sft_atlas.plan import cost
from sft_atlas.study.schema import Load


def test_training_costs_six_flop_per_parameter_and_token():
    tokens = (1e6, 1e6, 1e6)
    low, likely, high = cost.training_seconds(7e9, tokens, "full", DEVICE)
    assert likely == pytest.approx(10 + 6 * 7e9 * 1e6 / (0.4 * 100e12))
    assert low == pytest.approx(0 + 6 * 7e9 * 1e6 / (0.5 * 100e12)), "the low case is the fast device"
    assert high == pytest.approx(20 + 6 * 7e9 * 1e6 / (0.2 * 100e12))
    assert cost.training_seconds(7e9, tokens, "lora", DEVICE)[1] == pytest.approx(10 + (likely - 10) * 4 / 6)


def test_several_gpus_share_the_work_and_not_the_start():
    tokens = (1e6, 1e6, 1e6)
    one, four = (cost.training_seconds(7e9, tokens, "full", DEVICE, gpus)[1] for gpus in (1, 4))
    assert four - 10 == pytest.approx((one - 10) / 4)


def test_scoring_costs_reading_and_generating():
    load = Load(items=1000, prompt_tokens=(100, 100, 100), generated_tokens=(50, 50, 50), requests=2)
    likely = cost.scoring_seconds(7e9, [load], DEVICE)[1]
    assert likely == pytest.approx(10 + 2000 * 100 * 2 * 7e9 / (0.4 * 100e12) + 2000 * 50 / 1000)
    assert cost.scoring_seconds(14e9, [load], DEVICE)[1] == pytest.approx(10 + 2 * (likely - 10)), "twice the size, half the speed"


def test_estimates_must_ascend():
    with pytest.raises(ValueError, match="low, likely and high"):
        Load(items=1, prompt_tokens=(3, 2, 1))
