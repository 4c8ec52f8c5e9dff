"""The networks that can be trained: one file each, one record each, and one function that builds any of them.

`NetworkSpec` names a network, `build` makes it, `fold_weights` moves a trained one into its faster form for inference,
`load_encoder` starts one from weights learned elsewhere. Code outside this folder treats all architectures alike.
"""

from __future__ import annotations

from nucseg_batch.network.architectures.blocks import to_full_resolution
from nucseg_batch.network.architectures.folding import fold_weights
from nucseg_batch.network.architectures.pretrained import load_encoder, trained_encoder
from nucseg_batch.network.architectures.registry import RECIPES, NetworkSpec, build, network_spec
from nucseg_batch.network.architectures.sizer import build_sizer

__all__ = [
    "RECIPES",
    "NetworkSpec",
    "build",
    "build_sizer",
    "fold_weights",
    "load_encoder",
    "network_spec",
    "to_full_resolution",
    "trained_encoder",
]
