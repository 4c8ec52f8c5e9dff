"""Starting an encoder from weights learned elsewhere: ImageNet's, downloaded by Keras, or a file."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nucseg_batch.errors import InputMissingError, ModelError, UsageError
from nucseg_batch.network import backend
from nucseg_batch.network.architectures.encoder import Encoder, copied_name
from nucseg_batch.network.architectures.registry import NetworkSpec

TIMEOUT = 20.0
"""Seconds without an answer after which a download is given up."""
_SHAPE = (224, 224, 3)
"""Input that the published weights were made for; the weights themselves serve any size."""


@backend.own_settings()
def trained_encoder(spec: NetworkSpec, source: str) -> keras.Model | None:
    """The classifier whose weights `source` names; None for `none`, which leaves the encoder's random start.

    source: `imagenet` downloads what `keras.applications` publishes, or takes it from Keras's cache; anything else is a
    file (.h5, .weights.h5 or .keras; for efficientnetlite0 .npz) with the weights of the encoder without its top, of
    which nothing but arrays is read. Raises UsageError where the architecture has no such encoder, InputMissingError
    where the weights cannot be had, and ModelError where a file does not fit.
    """
    if source == "none":
        return None
    encoder = spec.recipe.encoder
    if encoder is None:
        raise UsageError(
            f"--encoder-weights {source}: --architecture {spec.architecture} has no encoder that others have trained; "
            "use mobilenetv2, mobilenetv3 or efficientnetlite0, or leave it out."
        )
    return _downloaded(encoder) if source == "imagenet" else _from_file(encoder, Path(source))


def load_encoder(spec: NetworkSpec, network: keras.Model, source: str) -> None:
    """Gives the encoder of a network built with normalisation the weights that `source` names.

    Source and errors are those of `trained_encoder`.
    """
    original = trained_encoder(spec, source)
    if original is None:
        return
    present = {layer.name for layer in network.layers}
    for layer in original.layers:
        if layer.weights and copied_name(layer) in present:
            network.get_layer(copied_name(layer)).set_weights(layer.get_weights())


def _downloaded(encoder: Encoder) -> keras.Model:
    if encoder.read is not None:
        raise InputMissingError(
            f"--encoder-weights imagenet: the weights of {encoder.title} cannot be downloaded by Keras. Give a file "
            f"with --encoder-weights FILE: {encoder.weights_url}."
        )
    try:
        with _patience(TIMEOUT), contextlib.redirect_stdout(sys.stderr):  # Keras shows its progress on stdout
            return encoder.application(weights="imagenet", input_shape=_SHAPE)
    except Exception as error:  # Keras raises bare Exception; a broken download is a ValueError or OSError
        raise InputMissingError(
            f"--encoder-weights imagenet: the weights of {encoder.title} cannot be downloaded ({_one_line(error)}). "
            f"Fetch {encoder.weights_url} on another machine and give it with --encoder-weights FILE, or do without: "
            "--encoder-weights none."
        ) from error


def _from_file(encoder: Encoder, path: Path) -> keras.Model:
    if not path.is_file():
        raise InputMissingError(
            f"--encoder-weights {path}: there is no such file. Give imagenet, none, or a file such as that at "
            f"{encoder.weights_url}."
        )
    original = encoder.application(weights=None, input_shape=_SHAPE)
    try:
        if encoder.read is not None:
            encoder.read(original, path)
        else:
            original.load_weights(path)
    except Exception as error:  # Keras and h5py raise many classes for damaged and foreign files
        raise ModelError(
            f"--encoder-weights {path}: it does not hold the weights of {encoder.title} without its top, as "
            f"{'.npz' if encoder.read is not None else '.h5, .weights.h5 or .keras'} ({_one_line(error)})."
        ) from error
    if not all(np.isfinite(weight).all() for weight in original.get_weights()):
        raise ModelError(f"--encoder-weights {path}: it has weights that are not numbers.")
    return original


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Sockets opened meanwhile give up after so many seconds of silence; they would wait for ever."""
    before: Any = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).rpartition(" -- ")[2]  # behind the address, where Keras names one
    return (text if len(text) <= 200 else text[:197] + "...") or type(error).__name__
