"""The schema refuses what it does not know and says what was meant."""

import pytest
from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import validation
from tufl_jax.errors import UserError


def test_base_is_locked_and_valid():
    config = config_lib.base()
    validation.validate(config)
    with pytest.raises(AttributeError):
        config.optim.lr = 1.0


@pytest.mark.parametrize(
    "key, near",
    [
        ("optim.learning_rte", "config.optim.learning_rate"),
        ("optm.learning_rate", "config.optim.learning_rate"),
        ("learning_rate", "config.optim.learning_rate"),
        ("train.log_evry", "config.train.log_every"),
    ],
)
def test_unknown_key_suggests_the_near_one(key, near):
    with pytest.raises(UserError, match=near.replace(".", r"\.")):
        config_lib.set_key(config_lib.base(), key, 1.0)


def test_wrong_type_names_the_key():
    with pytest.raises(UserError, match=r"config\.train\.num_steps"):
        config_lib.set_key(config_lib.base(), "train.num_steps", "many")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("stage", "stage3", "'source', 'stage1', 'stage2'"),
        ("model.batch_norm", "sync", "'frozen', 'trained', 'per_domain'"),
        ("loss.unsupervised", "focl", "'focal'"),
        ("loss.modulation", "scalar", "'per_class'"),
        ("loss.threshold", "adaptive", "'dynamic', 'fixed'"),
        ("thresholds.variant", "code", "'paper', 'released'"),
        ("thresholds.init", 1.0, r"not in \(0, 1\)"),
        ("thresholds.momentum", 1.5, r"not in \[0, 1\]"),
        ("num_classes", 18, "19, 16, 13"),
        ("train.log_every", 0, "at least 1"),
        ("train.accumulate", 3, "2 images cannot be split into 3 equal parts"),
        ("train.accumulate", 0, "0 is less than 1"),
        ("model.dtype", "float16", "'float32', 'bfloat16'"),
        ("stage", "stage2", "config.teacher.run"),
    ],
)
def test_impossible_values_are_refused(key, value, message):
    config = config_lib.base()
    config_lib.set_key(config, key, value)
    with pytest.raises(UserError, match=message):
        validation.validate(config)


def test_a_run_is_the_base_with_its_changes():
    config = config_lib.base()
    with config.unlocked():
        config.runs.late = ConfigDict({"optim": {"momentum": 0.5}, "stage": "stage1"})
    config.seed = 7
    run = config_lib.run_config(config, "late")
    assert (run.optim.momentum, run.stage, run.seed) == (0.5, "stage1", 7)
    assert run.optim.weight_decay == config.optim.weight_decay
    with pytest.raises(UserError, match="'early'"):
        config_lib.run_config(config, "early")


def test_a_run_with_a_wrong_key_is_refused():
    config = config_lib.base()
    with config.unlocked():
        config.runs.late = ConfigDict({"optim": {"momentun": 0.5}})
    with pytest.raises(UserError, match=r"config\.optim\.momentum"):
        config_lib.run_config(config, "late")


def test_differences_name_settings_but_not_places():
    config = config_lib.base()
    config.data.source.root = "here"
    saved = config_lib.as_json(config)
    config.data.num_threads = 7
    config.data.source.root = "elsewhere"
    assert config_lib.differences(saved, config) == []
    config.init.pretrained = "given"
    config.loss.gamma = 3.0
    assert config_lib.differences(saved, config) == [
        "init.pretrained: False there, True here",
        "loss.gamma: 2.0 there, 3.0 here",
    ]


def test_paths_expand_variables(monkeypatch):
    monkeypatch.setenv("PHOTOS", "folder")
    assert config_lib.expand("$PHOTOS/day", key="data.source.root") == "folder/day"
    monkeypatch.delenv("PHOTOS")
    with pytest.raises(UserError, match=r"config\.data\.source\.root.*\$PHOTOS/day"):
        config_lib.expand("$PHOTOS/day", key="data.source.root")
