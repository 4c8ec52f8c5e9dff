#!/bin/bash
# Trains a model on your annotated images, then segments a folder with it.
#   examples/train_and_segment.sh ANNOTATED IMAGES OUT.zarr [options of train, such as --epochs 30]
# ANNOTATED holds images/ and labels/ with files of the same names, or Kaggle's <id>/images and <id>/masks.
set -euo pipefail
annotated=$1 images=$2 out=$3
shift 3
model="${out%.zarr}.keras"
[ -e "$model" ] || nucseg-batch train "$annotated" "$model" "$@"
nucseg-batch segment "$images" "$out" --model "$model"
