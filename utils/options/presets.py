"""Tasks by name: every default that depends on the pair of domains.

A preset maps option names (fields of `utils.options.table.Options`) to values: first those for all scripts; then,
under the name of a script or `source_only`, those for that script; and under the name of a method, those for its
stages. A `num_steps_stop` below 1 is a share of `num_steps`.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

_NO_TERMS: Values = {f"lambda_{name}": 0.0 for name in ("adv_target", "adv_feat", "adv_cls", "adv_ins", "adv_cate")}

_CITYSCAPES_TARGET: Values = {
    "target": "cityscapes",
    "data_dir_target": "data/Cityscapes",
    "set": "val",
    "input_size": (1280, 720),
    "input_size_target": (1024, 512),
    # Pseudo-labels are ignored in the top 15 and the bottom 120 of 1024 rows: the edge of the rectified image, and the
    # car's bonnet (DAFormer ignores as many of 512 rows). All other values are DAFormer's.
    "plus": {
        "step2": {
            **{"optimizer": "adamw", "learning_rate": 6e-5, "weight_decay": 0.01, "warmup_steps": 1500},
            **{"pseudo_borders": (0.015, 0.117), "rare_class_temperature": 0.01},
        }
    },
}


def _aerial(source: str, target: str) -> Values:
    """One of the paper's aerial pairs, on tiles of `prepare_aerial.py`."""
    return {
        "source": "aerial",
        "target": "aerial",
        "data_dir": f"data/{source}",
        "data_dir_target": f"data/{target}",
        "data_list_target_test": "val.txt",
        "input_size": (512, 512),
        "input_size_target": (512, 512),
        "batch_size": 2,
    }


# Ten times the paper's weights, for hundreds of steps instead of hundreds of thousands (our choice).
_SHORT_SCHEDULE: Values = {
    "lambda_adv_target": 0.01,
    "lambda_adv_feat": 0.01,
    "lambda_adv_cls": 0.1,
    "lambda_adv_ins": 0.1,
    "lambda_adv_cate": 0.1,
}

# A tenth of the weights of stage 1, as in the paper.
_SECOND_STAGE: Values = {"lambda_adv_cls": 0.01, "lambda_adv_ins": 0.01, "lambda_adv_cate": 0.01}

# Chosen from CARLA to CamVid (bench/RESULTS.md).
_PLUS_TRAINING: Values = {"optimizer": "adamw", "weight_decay": 0.01, "class_balance": 0.5}
_PLUS_ON_BUILTIN: Values = {"learning_rate": 1e-3, **_PLUS_TRAINING}  # chosen with seed 100

# For a few hundred photographs (our choice, measured on CamVid: bench/camvid.py).
_SMALL_NETWORK: Values = {
    "backbone": "mobilenet_v2",
    "restore_from": "pretrained/mobilenet_v2_features.pth",
    "output_stride": 16,
    "discriminator_width": 0.25,
    "bn": "target",
    "batch_size": 2,
    "num_prototype": 5,  # so that things get ready within the first hundreds of steps
    "num_workers": 1,
    "random_mirror": True,
    "random_scale": True,
    "random_jitter": True,
    "save_pred_every": 1000,
    "log_every": 50,
    "step1": {"num_steps": 4000, "num_steps_stop": None, "learning_rate": 4e-3, "warmup_steps": 50},
    "step2": {"num_steps": 800, "num_steps_stop": None, "learning_rate": 1e-3},
    "restyle_train": {"num_steps": 4000, "generator_width": 0.25, "discriminator_width": 0.25},
    # Stage 1 learns only the source and stops after half of all steps; stage 2 starts at about the learning rate at
    # which stage 1 stopped (bench/real.py). The literature's teacher keeps 0.999 of itself, which looks back over
    # 1,000 steps of 40,000 or more. Blur and blocks shrink with the images. The baseline is trained as plus is.
    "plus": {
        "source_only": {"learning_rate": 3e-4, **_PLUS_TRAINING},
        "step1": {"num_steps_stop": 0.5, "learning_rate": 3e-4, "bn": "source", **_NO_TERMS, **_PLUS_TRAINING},
        "step2": {
            **{"num_steps": 2000, "learning_rate": 1.6e-4, **_PLUS_TRAINING},
            **{"ema": 0.99, "strong_blur": 0.6, "mask_block": 32},
        },
    },
}

PRESETS: dict[str, Values] = {
    "gta5_to_cityscapes": {
        **_CITYSCAPES_TARGET,
        "source": "gta5",
        "data_dir": "data/gta5_deeplab",
        "ssl_target_dir": "target_ssl_gt",
        "save": "result/cityscapes",
    },
    "synthia_to_cityscapes": {
        **_CITYSCAPES_TARGET,
        "source": "synthia",
        "data_dir": "data/syn_deeplab",
        "input_size": (1280, 760),
    },
    "iaild_to_mbd": _aerial("IAILD", "MBD"),
    "mbd_to_iaild": _aerial("MBD", "IAILD"),
    "deepglobe_to_mrd": _aerial("DeepGlobe", "MRD"),
    "mrd_to_deepglobe": _aerial("MRD", "DeepGlobe"),
    "camvid_day_to_dusk": {
        "source": "camvid",
        "target": "camvid",
        "data_dir": "data/CamVid",
        "data_dir_target": "data/CamVid",
        "data_list": "train_day.txt",
        "data_list_target": "train_dusk.txt",
        "data_list_target_test": "train_dusk.txt",
        "input_size": (320, 240),
        "input_size_target": (320, 240),
        **_SMALL_NETWORK,
        # Chosen before the dusk labels were looked at, and therefore kept. The paper's do better (bench/RESULTS.md).
        **_SHORT_SCHEDULE,
        "step2": {**_SMALL_NETWORK["step2"], **_SECOND_STAGE},
        "restyle_train": {**_SMALL_NETWORK["restyle_train"], "crop": (192, 192)},
    },
    "own_images": {
        "source": "folder",
        "target": "folder",
        "data_dir": "data/own/source",
        "data_dir_target": "data/own/target",
        "input_size": (640, 360),
        "input_size_target": (640, 360),
        "method": "plus",  # better than the paper's from a game to photographs (bench/RESULTS.md)
        **_SMALL_NETWORK,
    },
    "builtin": {
        "source": "gta5",
        "target": "cityscapes",
        "data_dir": "data/builtin/gta5_deeplab",
        "data_dir_target": "data/builtin/Cityscapes",
        "input_size": (256, 128),
        "input_size_target": (256, 128),
        "backbone": "tiny",
        "restore_from": "none",
        "batch_size": 4,
        "discriminator_width": 0.25,
        "learning_rate": 0.01,
        "bn": "target",
        **_SHORT_SCHEDULE,
        "num_prototype": 5,
        "num_workers": 0,
        "save_pred_every": 400,
        "log_every": 20,
        "random_mirror": True,
        "random_jitter": True,
        "step1": {"num_steps": 1900, "num_steps_stop": None, "warmup_steps": 50},
        "step2": {"num_steps": 500, "num_steps_stop": None, **_SECOND_STAGE},
        "restyle_train": {
            "num_steps": 1000,
            "crop": (128, 128),
            "generator_width": 0.25,
            "discriminator_width": 0.25,
        },
        # Stage 1 only learns the source; the baseline is trained as plus is.
        "plus": {
            "source_only": _PLUS_ON_BUILTIN,
            "step1": {**_PLUS_ON_BUILTIN, "bn": "source", **_NO_TERMS},
            "step2": {**_PLUS_ON_BUILTIN, "ema": 0.99, "strong_blur": 0.6, "mask_block": 16},
        },
    },
}

# The options in which the two stages differ, as in the paper.
STAGES: dict[str, Values] = {
    "step1": {
        "num_steps": 250_000,
        "num_steps_stop": 200_000,
        "lambda_adv_cls": 0.01,
        "lambda_adv_ins": 0.01,
        "lambda_adv_cate": 0.01,
        "restore_from": "pretrained/DeepLab_resnet_pretrained_init-f81d91e8.pth",
    },
    "step2": {
        "num_steps": 300_000,
        "num_steps_stop": 300_000,
        "lambda_adv_cls": 0.001,
        "lambda_adv_ins": 0.001,
        "lambda_adv_cate": 0.001,
        "restore_from": "{snapshots}/step1/last.pth",
    },
    "pseudo": {"restore_from": "{snapshots}/step1/last.pth"},
    # As in Zhu et al. 2017; the number of steps is our choice.
    "restyle_train": {
        "num_steps": 200_000,
        "num_steps_stop": None,
        "batch_size": 1,
        "iter_size": 1,
        "learning_rate": 2e-4,
        "learning_rate_D": 2e-4,
        "discriminator_width": 1.0,
        "random_mirror": True,
        "random_scale": False,
        "random_jitter": False,
        "crop": (256, 256),
        "snapshot_dir": "{snapshots}/restyle",
    },
    "restyle_apply": {"restore_from": "{snapshots}/restyle/last.pth"},
    "evaluate": {"restore_from": "{snapshots}/step2/last.pth"},
}

# `--method` chooses all differences between the paper and its released code at once: the form of each term, and which
# terms are off. The weights of the terms are left to the preset and the stage.
METHOD_OPTIONS: dict[str, dict[str, Values]] = {
    "paper": {
        "step1": {"aim": "paper", "isia": "paper", "absent_stuff": False},
        "step2": {"aim": "paper", "isia": "paper", "absent_stuff": False},
    },
    "released": {
        "step1": {
            "aim": "none",
            "isia": "released",
            "absent_stuff": True,
            "lambda_adv_feat": 0.0,
            "lambda_adv_cate": 0.0,
        },
        "step2": {"aim": "released", "isia": "released", "absent_stuff": True, "lambda_adv_feat": 0.0},
    },
    # The paper's terms have not paid where they were measured (bench/RESULTS.md). A weight switches each of them on.
    "plus": {
        "step1": {"aim": "paper", "isia": "paper", "absent_stuff": False},
        "step2": {
            "aim": "paper",
            "isia": "paper",
            "absent_stuff": False,
            "ssl_target_dir": None,
            **_NO_TERMS,
        },
    },
}
