#!/bin/bash
# Teaches the default model your microscope from annotated images, then segments a folder with it.
#   examples/train_and_segment.sh ANNOTATED IMAGES OUT.zarr [options of train, such as --epochs 30]
# ANNOTATED holds images/ and labels/ with files of the same names, or any other layout that the README lists. Called
# again after a kill it goes on with the training, or with the segmentation.
set -euo pipefail
annotated=$1 images=$2 out=$3
shift 3
model="${out%.zarr}.keras"
[ -e "${out%.zarr}.resume.json" ] && resume=--resume || resume=
[ -e "$model" ] || nucseg-batch train "$annotated" "$model" --init default $resume "$@"
nucseg-batch segment "$images" "$out" --model "$model"
